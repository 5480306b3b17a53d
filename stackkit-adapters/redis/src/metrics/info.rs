//! The reply of `INFO` as fields.

use std::collections::HashMap;
use std::str::FromStr;

use stackkit_core::Error;

use crate::error::RedisError;
use crate::resp::Reply;

/// What the name of a field of a module begins with here; the server calls all of them `module`.
const MODULE: &str = "module:";
/// Modules that come with the server, and the types of data that they have: Redis 8 has vector sets, Valkey 9.1 its Lua.
const BUILT_IN: [(&str, &[&str]); 2] = [("vectorset", &["vectorset"]), ("lua", &[])];

/// The fields of `INFO`, all sections.
#[derive(Debug, Default)]
pub(crate) struct Info(HashMap<String, String>);

/// Keys of one database, as `INFO keyspace` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keyspace {
    pub(crate) database: u64,
    pub(crate) keys: u64,
    pub(crate) expiring: u64,
}

/// A replica of this server, as `INFO replication` has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Replica {
    /// Its address, `host:port`.
    pub(crate) name: String,
    pub(crate) is_online: bool,
    /// Bytes of the replication stream that it has acknowledged.
    pub(crate) offset: f64,
    /// Seconds since its last acknowledgement.
    pub(crate) lag: Option<f64>,
}

impl Info {
    pub(crate) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        let fields = fields.map(|(name, value)| match module(name, value) {
            // There is one line for each.
            Some(module) => (format!("{MODULE}{module}"), String::new()),
            None => (name.to_owned(), value.trim_end().to_owned()),
        });
        Self(fields.collect())
    }

    /// The reply of `INFO`, or the error that it is.
    pub(crate) fn from_reply(reply: Reply) -> Result<Self, Error> {
        match reply {
            Reply::Error(error) => Err(RedisError::Server(error).into()),
            reply => {
                let text = reply.bytes().ok_or(RedisError::Answer)?;
                Ok(Self::parse(&String::from_utf8_lossy(text)))
            }
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name) == Some(value)
    }

    /// The version that clients must reckon with; a Valkey server names the Redis version that it stands for.
    pub(crate) fn version(&self) -> &str {
        self.text("redis_version").unwrap_or("unknown")
    }

    /// Major and minor version.
    pub(crate) fn version_pair(&self) -> (u16, u16) {
        let mut numbers = self.version().split('.').map(|number| number.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// Which product answers, and its own version.
    pub(crate) fn server(&self) -> (&'static str, &str) {
        match self.text("valkey_version") {
            Some(version) => ("valkey", version),
            None if self.is("server_name", "valkey") => ("valkey", self.version()),
            None => ("redis", self.version()),
        }
    }

    /// The modules that are loaded, those that come with the server among them.
    fn modules(&self) -> impl Iterator<Item = &str> {
        self.0.keys().filter_map(|name| name.strip_prefix(MODULE))
    }

    /// Whether any module is loaded.
    pub(crate) fn has_modules(&self) -> bool {
        self.modules().next().is_some()
    }

    /// Whether a module may be there that reads values of this type: what types those have that do not come with the server can't
    /// be asked.
    pub(crate) fn may_read(&self, module_type: &str) -> bool {
        self.modules().any(|module| match BUILT_IN.iter().find(|(name, _)| *name == module) {
            Some((_, types)) => types.contains(&module_type),
            None => true,
        })
    }

    /// The databases that hold keys, in order.
    pub(crate) fn keyspaces(&self) -> Vec<Keyspace> {
        let mut found: Vec<Keyspace> = self.0.iter().filter_map(|(name, value)| keyspace(name, value)).collect();
        found.sort_by_key(|keyspace| keyspace.database);
        found
    }

    /// The replicas that are connected, in the server's order.
    pub(crate) fn replicas(&self) -> Vec<Replica> {
        let numbered = |(name, value): (&String, &String)| {
            let number: u64 = name.strip_prefix("slave")?.parse().ok()?;
            Some((number, replica(value)?))
        };
        let mut found: Vec<(u64, Replica)> = self.0.iter().filter_map(numbered).collect();
        found.sort_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, replica)| replica).collect()
    }
}

/// `module` and `name=vectorset,ver=1,…`.
fn module<'a>(name: &str, value: &'a str) -> Option<&'a str> {
    let fields = (name == "module").then_some(value)?;
    fields.split(',').find_map(|field| field.strip_prefix("name=")).map(str::trim_end)
}

/// `db0` and `keys=3,expires=1,avg_ttl=0`.
fn keyspace(name: &str, value: &str) -> Option<Keyspace> {
    let database = name.strip_prefix("db")?.parse().ok()?;
    let number = |wanted| field(value, wanted).and_then(|digits| digits.parse().ok());
    Some(Keyspace { database, keys: number("keys")?, expiring: number("expires").unwrap_or(0) })
}

/// `ip=10.0.0.2,port=6379,state=online,offset=42,lag=0`.
fn replica(value: &str) -> Option<Replica> {
    Some(Replica {
        name: format!("{}:{}", field(value, "ip")?, field(value, "port")?),
        is_online: field(value, "state") == Some("online"),
        offset: field(value, "offset")?.parse().ok()?,
        lag: field(value, "lag").and_then(|seconds| seconds.parse().ok()).filter(|seconds| *seconds >= 0.0),
    })
}

fn field<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = value.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_databases_come_in_order() {
        let info = Info::parse(
            "slave1:ip=10.0.0.3,port=6379,state=wait_bgsave,offset=0,lag=0\nslave0:ip=::1,port=7,state=online,offset=42,lag=1\n\
             slave_repl_offset:9\ndb10:keys=1,expires=0\ndb2:keys=7,expires=3,avg_ttl=9,subexpiry=0\n",
        );
        let replicas = info.replicas();
        assert_eq!(
            replicas.iter().map(|replica| replica.name.as_str()).collect::<Vec<_>>(),
            ["::1:7", "10.0.0.3:6379"]
        );
        assert_eq!((replicas[0].is_online, replicas[0].offset, replicas[0].lag), (true, 42.0, Some(1.0)));
        assert!(!replicas[1].is_online);
        assert_eq!(info.keyspaces().iter().map(|keyspace| keyspace.database).collect::<Vec<_>>(), [2, 10]);
    }

    #[test]
    fn valkey_is_told_from_redis() {
        assert_eq!(Info::parse("redis_version:7.0.15").server(), ("redis", "7.0.15"));
        let valkey = Info::parse("redis_version:7.2.4\nserver_name:valkey\nvalkey_version:8.1.1");
        assert_eq!((valkey.server(), valkey.version_pair()), (("valkey", "8.1.1"), (7, 2)));
    }
}
