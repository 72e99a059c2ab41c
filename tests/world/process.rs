//! One process of a Rainstorm: started, listened to, and treated badly. It comes back on the port that it had, because
//! the others know it there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{OnceCell, oneshot},
};

use crate::PATIENCE;

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What this world calls it: `order`, `bridge`, of second instances `order-2` …
    pub name: String,
    pub program: String,
    pub arguments: Vec<OsString>,
    /// Environment variables.
    pub settings: Vec<(String, String)>,
}

impl Plan {
    /// A process of one of the project's programs.
    pub fn new(name: impl Into<String>, program: &str, settings: &[(String, String)]) -> Self {
        let (name, program) = (name.into(), program.to_owned());
        Self { name, program, arguments: Vec::new(), settings: settings.to_vec() }
    }

    /// With an argument.
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With a setting; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: impl Into<String>) -> Self {
        self.settings.push((name.to_owned(), value.into()));
        self
    }
}

/// A process that was started.
pub struct Process {
    plan: Plan,
    child: Child,
    pub port: u16,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts it, and returns when it listens.
    pub async fn start(plan: Plan) -> Self {
        Self::start_saying(plan, Arc::default()).await
    }

    async fn start_saying(plan: Plan, said: Arc<Mutex<Vec<String>>>) -> Self {
        let mut child = Command::new(programs().await.join(&plan.program))
            .args(&plan.arguments)
            .envs(plan.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", plan.program));
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines();
        let (port, listening) = oneshot::channel();
        let (hearing, name) = (said.clone(), plan.name.clone());
        tokio::spawn(async move {
            let mut port = Some(port);
            while let Ok(Some(line)) = lines.next_line().await {
                let announced = line.strip_prefix("listening on port ").and_then(|port| port.parse::<u16>().ok());
                match (announced, port.take()) {
                    (Some(announced), Some(waiting)) => drop(waiting.send(announced)),
                    (_, waiting) => {
                        port = waiting;
                        words(&hearing).push(format!("{name}: {line}"));
                    }
                }
            }
        });
        let port = tokio::time::timeout(PATIENCE, listening).await.ok().and_then(Result::ok);
        let port = port.unwrap_or_else(|| panic!("{} did not start: {:?}", plan.name, words(&said)));
        Process { plan, child, port, said }
    }

    /// What this world calls it.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Ends it with SIGKILL, and returns when it is gone.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        kill_process(pid.expect("it runs"), signal).expect("it can be signalled");
    }

    /// Returns its exit status when it has ended.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("{} does not end", self.plan.name)).expect("it can be waited for").code()
    }

    /// Starts it again on the same port, after it has ended, with these settings besides those it had at first.
    pub async fn start_again(&mut self, settings: &[(&str, &str)]) {
        assert!(!self.is_running(), "{} still runs", self.plan.name);
        let plan = self.plan.clone().setting("PORT", self.port.to_string());
        let plan = settings.iter().fold(plan, |plan, (name, value)| plan.setting(name, *value));
        *self = Self { plan: self.plan.clone(), ..Self::start_saying(plan, self.said.clone()).await };
    }

    /// What it has said so far.
    pub fn said(&self) -> Vec<String> {
        words(&self.said).clone()
    }
}

/// Whoever fails may hold them: what was said is as good as before.
fn words(said: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A port that nobody has now, and that no outgoing connection gets while its owner is away.
pub fn free_port() -> u16 {
    let below_the_outgoing = 30_000..32_000_u16;
    let mut ports = below_the_outgoing.map(|port| (uuid::Uuid::new_v4(), port)).collect::<Vec<_>>();
    ports.sort();
    let free = |(_, port): &(_, u16)| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    ports.into_iter().find(free).expect("a free port").1
}

/// The folder with the project's programs, built from what stands in the workspace now.
pub async fn programs() -> PathBuf {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the workspace");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(workspace);
        // What Cargo tells this test of itself it would take for a change: some build scripts ask for it, and half of the
        // programs would be built anew, under the hands of whoever runs them now.
        for (name, _) in std::env::vars_os() {
            let of_this_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
            if name.to_str().is_some_and(|name| of_this_test.iter().any(|it| name.starts_with(it))) {
                build.env_remove(name);
            }
        }
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.status().await;
        assert!(built.expect("cargo runs").success(), "the programs can't be built");
        // This test is target/debug/deps/name-hash; the programs stand two folders up from it.
        let test = std::env::current_exe().expect("its own path");
        test.ancestors().nth(2).expect("target/debug").to_owned()
    };
    BUILT.get_or_init(|| build).await.clone()
}
