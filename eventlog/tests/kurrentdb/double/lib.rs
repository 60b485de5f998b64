//! A double of a KurrentDB server: it speaks the protocol, keeps a log in memory, and fails on
//! demand.
//!
//! The rule of this file: what it answers, and in which order, is what the server's published
//! source does; a fault changes one thing. It proves the adapter's manners. It proves nothing about
//! what a real server does with its disk, or with two requests at once.
//!
//! # Layout
//! - `proto` is the protocol, generated from its definition.
//! - `log` is the data, which several nodes may share, as a cluster does.
//! - `streams` answers appends and reads; `wire` holds connections that can be cut.
#![expect(clippy::unwrap_used, reason = "a test whose server fails should stop there")]

mod log;
pub mod proto;
mod streams;
mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::proto::gossip::gossip_server::{Gossip, GossipServer};
use crate::proto::gossip::member_info::VNodeState;
use crate::proto::gossip::{ClusterInfo, EndPoint, MemberInfo};
use crate::proto::server_features::SupportedMethods;
use crate::proto::server_features::server_features_server::{ServerFeatures, ServerFeaturesServer};
use crate::proto::shared::{Uuid, uuid::Value};
use crate::proto::streams::streams_server::StreamsServer;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

pub use self::log::{Database, Flaw, Stored};
use self::streams::Streams;
use self::wire::Wires;

/// The user that every double knows.
pub const USER: &str = "admin:changeit";

/// What happens to the next append.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AppendFault {
    /// The connection is cut before anything is stored.
    CutBefore,
    /// The connection is cut when it is stored and before that is answered.
    CutAfter,
    /// It is stored, and the answer says that the server ran out of time.
    TimeOutAfter,
    /// Too busy to take it.
    Busy,
}

/// What a node is to its cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// It takes appends.
    Leader,
    /// It sends on who needs a leader.
    Follower {
        /// To whom.
        leader: SocketAddr,
    },
    /// A read-only replica that knows of no leader.
    Leaderless,
    /// Starting.
    NotReady,
}

/// What the tests switch.
pub struct Switches {
    /// What this node is now.
    pub role: Mutex<Role>,
    /// What happens to the next appends, each in turn.
    pub appends: Mutex<VecDeque<AppendFault>>,
    /// Ends subscriptions without an error after so many more events, each in turn.
    pub quiet_ends: Mutex<VecDeque<usize>>,
    /// Cuts the connection after so many more events of a subscription, each in turn.
    pub cuts: Mutex<VecDeque<usize>>,
    /// Every node of the cluster, as gossip tells it.
    pub members: Mutex<Vec<SocketAddr>>,
}

/// One node.
pub struct Double {
    /// What it stores.
    pub database: Arc<Database>,
    /// What the tests switch.
    pub switches: Arc<Switches>,
    address: SocketAddr,
    wires: Arc<Wires>,
    running: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Double {
    /// Starts a node of its own.
    pub async fn start() -> Double {
        Double::over(Arc::new(Database::new(Flaw::None))).await
    }

    /// Starts a node over a log, with a port of its own.
    pub async fn over(database: Arc<Database>) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let switches = Arc::new(Switches {
            role: Mutex::new(Role::Leader),
            appends: Mutex::default(),
            quiet_ends: Mutex::default(),
            cuts: Mutex::default(),
            members: Mutex::new(vec![address]),
        });
        let double = Double {
            database,
            switches,
            address,
            wires: Arc::default(),
            running: Mutex::default(),
        };
        double.serve(listener);
        double
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--event-store` would be.
    pub fn url(&self) -> String {
        format!("kurrentdb://{USER}@{}?tls=false&discoveryInterval=1", self.address)
    }

    /// Cuts every connection, without a word.
    pub fn cut(&self) {
        self.wires.cut();
    }

    /// Ends the node: nobody listens any more, and every connection is cut.
    pub async fn stop(&self) {
        let running = self.running.lock().take();
        self.wires.cut();
        if let Some((stop, task)) = running {
            let _ = stop.send(());
            task.await.unwrap();
        }
    }

    /// Starts the node again where it was.
    pub fn restart(&self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.serve(socket.listen(128).unwrap());
    }

    fn serve(&self, listener: TcpListener) {
        let streams = Streams {
            database: self.database.clone(),
            switches: self.switches.clone(),
            wires: self.wires.clone(),
        };
        let cluster = Cluster { switches: self.switches.clone() };
        let (stop, stopped) = oneshot::channel();
        let server = Server::builder()
            .add_service(StreamsServer::new(streams))
            .add_service(GossipServer::new(cluster))
            .add_service(ServerFeaturesServer::new(Features))
            .serve_with_incoming_shutdown(self.wires.clone().incoming(listener), async {
                let _ = stopped.await;
            });
        let task = tokio::spawn(async move { server.await.unwrap() });
        *self.running.lock() = Some((stop, task));
    }
}

struct Cluster {
    switches: Arc<Switches>,
}

#[tonic::async_trait]
impl Gossip for Cluster {
    async fn read(&self, _: Request<()>) -> Result<Response<ClusterInfo>, Status> {
        let leader = match *self.switches.role.lock() {
            Role::Leader => None,
            Role::Follower { leader } => Some(leader),
            Role::Leaderless | Role::NotReady => return Err(Status::unavailable("not ready")),
        };
        let members = self.switches.members.lock().clone();
        let leads = |member: SocketAddr| match leader {
            Some(leader) => member == leader,
            None => true,
        };
        let members = members.into_iter().map(|member| MemberInfo {
            instance_id: Some(Uuid { value: Some(Value::String(uuid::Uuid::now_v7().into())) }),
            time_stamp: 0,
            state: if leads(member) { VNodeState::Leader } else { VNodeState::Follower } as i32,
            is_alive: true,
            http_end_point: Some(EndPoint {
                address: member.ip().to_string(),
                port: member.port().into(),
            }),
        });
        Ok(Response::new(ClusterInfo { members: members.collect() }))
    }
}

struct Features;

#[tonic::async_trait]
impl ServerFeatures for Features {
    async fn get_supported_methods(
        &self,
        _: Request<()>,
    ) -> Result<Response<SupportedMethods>, Status> {
        Ok(Response::new(SupportedMethods {
            methods: Vec::new(),
            event_store_server_version: "24.10.0".into(),
        }))
    }
}
