//! Where `pg_dump` runs, if not here: in the container or pod of the server, which always has the one that fits.
//!
//! Only the table of contents comes from there, a few MB; the rows go by our own connections.

use std::fmt;
use std::path::PathBuf;

use stackkit_core::process::Tool;
use stackkit_core::{Error, Result, Secret};

/// What a shell in the pod does: it takes the password from its standard input, then becomes the tool.
const READ_PASSWORD: &str = "IFS= read -r PGPASSWORD; export PGPASSWORD; exec \"$@\"";

/// A call of a vendor's tool.
///
/// ```
/// use stackkit_postgres::ToolCall;
/// let call = ToolCall::new("pg_dump").with_args(["--version"]);
/// assert_eq!((call.program, call.args.len()), ("pg_dump", 1));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ToolCall {
    /// The program's name.
    pub program: &'static str,
    /// Its arguments. No secret is among them.
    pub args: Vec<String>,
    /// Variables of libpq that say who connects to what. The host is not among them: where the tool runs, the server may
    /// have another one.
    pub env: Vec<(&'static str, String)>,
    /// The password that the tool finds as `PGPASSWORD`.
    pub password: Option<Secret>,
}

impl ToolCall {
    /// A call without arguments.
    #[must_use]
    pub fn new(program: &'static str) -> Self {
        Self { program, args: Vec::new(), env: Vec::new(), password: None }
    }

    /// Adds arguments. Never a secret.
    #[must_use]
    pub fn with_args<I: IntoIterator<Item = T>, T: Into<String>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds a variable. Never a secret.
    #[must_use]
    pub fn with_env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Sets the password.
    #[must_use]
    pub fn with_password(mut self, password: Option<Secret>) -> Self {
        self.password = password;
        self
    }
}

/// The process that carries out a [`ToolCall`].
///
/// ```
/// use stackkit_core::process::Tool;
/// use stackkit_postgres::ToolStart;
/// let start = ToolStart::new(Tool::new("/usr/bin/pg_dump").arg("--version"));
/// ```
#[derive(Debug)]
pub struct ToolStart {
    pub(crate) tool: Tool,
    pub(crate) input: Option<Secret>,
}

impl ToolStart {
    /// This process. Its standard output must be that of the tool.
    #[must_use]
    pub fn new(tool: Tool) -> Self {
        Self { tool, input: None }
    }

    /// A line that it reads from its standard input first.
    #[must_use]
    pub fn with_input(mut self, line: Secret) -> Self {
        self.input = Some(line);
        self
    }
}

/// Runs `pg_dump` somewhere else, for the table of contents of a dump by `Engine::Parallel`.
///
/// When the process is ended, the tool must see its standard output closed: then it ends too.
///
/// ```
/// use stackkit_core::{Result, process::Tool};
/// use stackkit_postgres::{ToolCall, ToolRunner, ToolStart};
///
/// /// Runs it by ssh, where a password file waits.
/// #[derive(Debug)]
/// struct Ssh(String);
///
/// impl ToolRunner for Ssh {
///     fn start(&self, call: &ToolCall) -> Result<ToolStart> {
///         let env = call.env.iter().map(|(name, value)| format!("{name}={value}"));
///         let tool = Tool::new("/usr/bin/ssh").arg(&self.0).arg("env").args(env).arg(call.program).args(&call.args);
///         Ok(ToolStart::new(tool))
///     }
/// }
/// ```
pub trait ToolRunner: fmt::Debug + Send + Sync {
    /// The process for a call.
    ///
    /// # Errors
    /// `Config` if the call can't be carried out there.
    fn start(&self, call: &ToolCall) -> Result<ToolStart>;
}

/// Runs the tool by `docker exec` in the container of the server. The password goes by the environment of the client, so no
/// argument holds it.
///
/// ```
/// use std::sync::Arc;
/// use stackkit_postgres::{DockerExec, PostgresConfig};
/// let config = PostgresConfig::new("localhost", "shop").with_tool_runner(Arc::new(DockerExec::new("shop-db-1")));
/// ```
#[derive(Debug, Clone)]
pub struct DockerExec {
    container: String,
    client: PathBuf,
    host: Option<String>,
    port: Option<u16>,
}

impl DockerExec {
    /// In this container, over the server's default socket there.
    pub fn new(container: impl Into<String>) -> Self {
        Self { container: container.into(), client: "docker".into(), host: None, port: None }
    }

    /// Sets the client, such as `podman`; `docker` of `PATH` unless set.
    #[must_use]
    pub fn with_client(mut self, client: impl Into<PathBuf>) -> Self {
        self.client = client.into();
        self
    }

    /// Sets host and port of the server as the container sees it; its default socket unless set.
    #[must_use]
    pub fn with_server(mut self, host: impl Into<String>, port: u16) -> Self {
        (self.host, self.port) = (Some(host.into()), Some(port));
        self
    }
}

impl ToolRunner for DockerExec {
    fn start(&self, call: &ToolCall) -> Result<ToolStart> {
        let mut tool = Tool::new(&self.client).args(["exec", "--interactive"]);
        for variable in variables(call, self.host.as_deref(), self.port) {
            tool = tool.arg("--env").arg(variable);
        }
        if let Some(password) = &call.password {
            tool = tool.args(["--env", "PGPASSWORD"]).secret_env("PGPASSWORD", password);
        }
        Ok(ToolStart::new(tool.arg(&self.container).arg(call.program).args(&call.args)))
    }
}

/// Runs the tool by `kubectl exec` in the pod of the server. The password goes over standard input, so no argument holds it.
///
/// ```
/// use std::sync::Arc;
/// use stackkit_postgres::{KubectlExec, PostgresConfig};
/// let runner = KubectlExec::new("shop", "db-0").with_container("postgres");
/// let config = PostgresConfig::new("localhost", "shop").with_tool_runner(Arc::new(runner));
/// ```
#[derive(Debug, Clone)]
pub struct KubectlExec {
    namespace: String,
    pod: String,
    container: Option<String>,
    client: PathBuf,
    host: Option<String>,
    port: Option<u16>,
}

impl KubectlExec {
    /// In this pod, over the server's default socket there.
    pub fn new(namespace: impl Into<String>, pod: impl Into<String>) -> Self {
        let client = "kubectl".into();
        Self { namespace: namespace.into(), pod: pod.into(), container: None, client, host: None, port: None }
    }

    /// Sets the container; the pod's default unless set.
    #[must_use]
    pub fn with_container(mut self, container: impl Into<String>) -> Self {
        self.container = Some(container.into());
        self
    }

    /// Sets the client; `kubectl` of `PATH` unless set.
    #[must_use]
    pub fn with_client(mut self, client: impl Into<PathBuf>) -> Self {
        self.client = client.into();
        self
    }

    /// Sets host and port of the server as the pod sees it; its default socket unless set.
    #[must_use]
    pub fn with_server(mut self, host: impl Into<String>, port: u16) -> Self {
        (self.host, self.port) = (Some(host.into()), Some(port));
        self
    }
}

impl ToolRunner for KubectlExec {
    fn start(&self, call: &ToolCall) -> Result<ToolStart> {
        let mut tool = Tool::new(&self.client).args(["exec", "--stdin", "--namespace", &self.namespace, &self.pod]);
        if let Some(container) = &self.container {
            tool = tool.args(["--container", container]);
        }
        tool = tool.arg("--");
        if call.password.is_some() {
            tool = tool.args(["sh", "-c", READ_PASSWORD, "sh"]);
        }
        let variables = variables(call, self.host.as_deref(), self.port);
        let start = ToolStart::new(tool.arg("env").args(variables).arg(call.program).args(&call.args));
        match &call.password {
            Some(password) if password.expose().contains('\n') => {
                Err(Error::config("a password with a newline can't be sent into a pod"))
            }
            Some(password) => Ok(start.with_input(password.clone())),
            None => Ok(start),
        }
    }
}

/// The variables of a call, with the place of the server.
fn variables(call: &ToolCall, host: Option<&str>, port: Option<u16>) -> Vec<String> {
    let mut all: Vec<String> = call.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    all.extend(host.map(|host| format!("PGHOST={host}")));
    all.extend(port.map(|port| format!("PGPORT={port}")));
    all
}
