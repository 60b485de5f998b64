//! That what an old event did not say is what was done with it then.

use serde_json::value::RawValue;

use crate::chat::run::ChatRunEvent;
use crate::event::decode;

#[test]
fn an_old_failure_of_the_assistant_passes_or_lasts_by_its_code() {
    for (code, passes) in [
        ("llm_unreachable", true),
        ("llm_stalled", true),
        ("run_timed_out", true),
        ("llm_status_429", true),
        ("llm_status_503", true),
        ("llm_status_404", false),
        ("llm_model_missing", false),
        ("product_not_found", false),
    ] {
        let stored = format!(r#"{{"code":"{code}","error":{{"sealed":"s1.key.text"}},"fence":1}}"#);
        let stored = RawValue::from_string(stored).unwrap();
        let lifted: ChatRunEvent = decode("chat_run.failed.v1", &stored).unwrap();
        let ChatRunEvent::Failed { transient, .. } = lifted else { panic!("{lifted:?}") };
        assert_eq!(transient, passes, "{code}");
    }
}
