//! Metrics, for Prometheus.
//!
//! The one rule: a label has few values. So routes are counted by their template, never by their
//! path, and what no route answers is one route.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use parking_lot::Mutex;
use projections::Status;

const REQUESTS: &str = "prodgy_http_requests_total";
const DURATION: &str = "prodgy_http_request_duration_seconds";
const IN_FLIGHT: &str = "prodgy_http_requests_in_flight";
const LAG: &str = "prodgy_projection_lag";
const STOPPED: &str = "prodgy_projection_stopped";

/// Upper bounds of every histogram of durations, in seconds: from a cached read to a long upload.
const DURATION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

static INSTALLED: OnceLock<PrometheusHandle> = OnceLock::new();

/// What has been counted in this process.
#[derive(Clone, Debug)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Begins to count, for the whole process. Again is the same as once.
    pub fn install() -> Result<Self, BuildError> {
        if let Some(handle) = INSTALLED.get() {
            return Ok(Metrics(handle.clone()));
        }
        let recorder = recorder()?;
        let mut handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err()
            && let Some(first) = INSTALLED.get()
        {
            // Another thread was faster, between the two looks.
            handle = first.clone();
        }
        let handle = INSTALLED.get_or_init(|| handle).clone();
        describe_counter!(REQUESTS, "Requests answered, by method, route and status");
        describe_histogram!(DURATION, "Time from a request to the head of its answer");
        describe_gauge!(IN_FLIGHT, "Requests that are being answered");
        describe_gauge!(LAG, "How far a read model is behind the log, in positions");
        describe_gauge!(STOPPED, "1 where a read model stopped at an event that it cannot take in");
        Ok(Metrics(handle))
    }

    /// Everything counted so far, as `GET /metrics` answers it.
    pub fn render(&self) -> Response {
        let media_type = "text/plain; version=0.0.4; charset=utf-8";
        ([(CONTENT_TYPE, media_type)], self.0.render()).into_response()
    }

    /// Folds what was measured into its buckets now and then, so that it does not pile up while
    /// nobody asks. Runs until it is dropped.
    pub async fn keep_up(self) {
        let mut clock = tokio::time::interval(Duration::from_secs(5));
        loop {
            clock.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// Where the read models stand, when somebody asks: they themselves know how far they are, and not
/// how far the log has gone on since. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Standings(Arc<Mutex<BTreeSet<String>>>);

impl Standings {
    /// Says how far each is behind and whether it stopped; what was told of once and is gone does neither any more.
    pub fn tell(&self, statuses: &[Status]) {
        let mut told = self.0.lock();
        told.extend(statuses.iter().map(|status| status.name.clone()));
        for name in told.iter() {
            let status = statuses.iter().find(|status| status.name == *name);
            let lag = status.map_or(0, |status| status.lag);
            gauge!(LAG, "projection" => name.clone()).set(lag as f64);
            let is_stopped = status.is_some_and(|status| status.stopped.is_some());
            gauge!(STOPPED, "projection" => name.clone()).set(f64::from(u8::from(is_stopped)));
        }
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let durations = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &DURATION_BUCKETS)?;
    Ok(builder.build_recorder())
}

/// Counts a request that is under way, even when its future is dropped halfway.
struct InFlight;

impl InFlight {
    fn begin() -> Self {
        gauge!(IN_FLIGHT).increment(1.0);
        InFlight
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        gauge!(IN_FLIGHT).decrement(1.0);
    }
}

/// The layer: counts and times every request.
pub async fn measure(request: Request, next: impl AsyncFnOnce(Request) -> Response) -> Response {
    let in_flight = InFlight::begin();
    let started = Instant::now();
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();

    let response = next(request).await;

    drop(in_flight);
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str).to_owned();
    let labels = [("method", method.into()), ("route", metrics::SharedString::from(route))];
    histogram!(DURATION, &labels).record(started.elapsed().as_secs_f64());
    let [method, route] = labels;
    let status = response.status().as_str().to_owned();
    counter!(REQUESTS, &[method, route, ("status", status.into())]).increment(1);
    response
}

/// HTTP lets clients make methods up.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
