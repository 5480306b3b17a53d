//! What is insecure about the configuration and the server: risks, never failures. It reads, and never tries a password.

use std::net::IpAddr;

use stackkit_core::health::{Axis, Finding, Severity};
use stackkit_core::{Secret, Service, Weakness};
use tokio::time::Instant;

use crate::client::Connection;
use crate::config::{PASSWORDS_DEFAULT, RedisConfig};
use crate::error::RedisError;
use crate::metrics::{Sheet, Why, float, setting};
use crate::resp::Reply;
use crate::service::Redis;

/// A command that can take a server down or its data away: how it is told, how a dry run of it is called, and the ACL
/// categories that hold it.
struct Dangerous {
    name: &'static str,
    dry_run: &'static [&'static [u8]],
    rules: &'static [&'static str],
}

/// None of them is something that an application needs.
const DANGEROUS: [Dangerous; 4] = [
    Dangerous {
        name: "CONFIG SET",
        dry_run: &[b"CONFIG", b"SET", b"maxmemory", b"0"],
        rules: &["@all", "@admin", "@slow", "@dangerous", "config", "config|set"],
    },
    Dangerous {
        name: "FLUSHALL",
        dry_run: &[b"FLUSHALL"],
        rules: &["@all", "@keyspace", "@write", "@slow", "@dangerous", "flushall"],
    },
    Dangerous {
        name: "DEBUG",
        dry_run: &[b"DEBUG", b"SLEEP", b"0"],
        rules: &["@all", "@admin", "@slow", "@dangerous", "debug"],
    },
    Dangerous {
        name: "KEYS",
        dry_run: &[b"KEYS", b"*"],
        rules: &["@all", "@keyspace", "@read", "@slow", "@dangerous", "keys"],
    },
];

/// The version from which on protected mode does not look at the addresses that the server listens on.
const PROTECTED_ANYWHERE: u16 = 7;

/// What the server says of itself.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Whether the user `default` needs no password.
    default_open: Result<bool, Why>,
    /// The addresses that it listens on; none if it has no TCP port.
    bind: Result<Vec<String>, Why>,
    protected: Result<bool, Why>,
    debug: Result<bool, Why>,
    /// Which of the dangerous commands the own user may run.
    dangerous: Result<Vec<&'static str>, Why>,
}

/// Asks in two or three round trips; what is refused is left open.
pub(crate) async fn ask(
    connection: &mut Connection,
    config: &RedisConfig,
    deadline: Instant,
) -> Result<Facts, RedisError> {
    let commands: [&[&[u8]]; 7] = [
        &[b"ACL", b"WHOAMI"],
        &[b"ACL", b"GETUSER", b"default"],
        &[b"CONFIG", b"GET", b"port"],
        &[b"CONFIG", b"GET", b"tls-port"],
        &[b"CONFIG", b"GET", b"bind"],
        &[b"CONFIG", b"GET", b"protected-mode"],
        &[b"CONFIG", b"GET", b"enable-debug-command"],
    ];
    let replies = connection.pipeline(&commands, deadline).await?;
    let [whoami, default, port, tls_port, bind, protected, debug] =
        <[Reply; 7]>::try_from(replies).map_err(|_fewer| RedisError::Answer)?.map(plain);
    let text = |reply: Result<Reply, Why>| reply.and_then(|reply| setting(&reply));
    // A version without TLS has no such setting.
    let listens = |reply| text(reply).map(|port| port != "0" && !port.is_empty());
    let listens = listens(port).map(|plain| plain || listens(tls_port).unwrap_or(false));
    Ok(Facts {
        // Whoever needed no password needs not ask.
        default_open: if config.password.is_none() { Ok(true) } else { default.and_then(|user| is_open(&user)) },
        bind: listens.and_then(|listens| {
            let addresses = text(bind)?;
            Ok(if listens { addresses.split_whitespace().map(str::to_owned).collect() } else { Vec::new() })
        }),
        protected: text(protected).map(|value| value == "yes"),
        debug: text(debug).map(|value| value == "yes"),
        dangerous: match whoami {
            Ok(Reply::Bulk(user)) => dangerous(connection, &user, deadline).await?,
            Ok(_) => Err(Why::Refused),
            Err(why) => Err(why),
        },
    })
}

fn plain(reply: Reply) -> Result<Reply, Why> {
    match reply {
        Reply::Error(error) => Err(Why::of(&error)),
        reply => Ok(reply),
    }
}

/// By dry runs, which execute nothing (7.0 on), else by the user's own rules.
async fn dangerous(
    connection: &mut Connection,
    user: &[u8],
    deadline: Instant,
) -> Result<Result<Vec<&'static str>, Why>, RedisError> {
    let commands: Vec<Vec<&[u8]>> = DANGEROUS
        .iter()
        .map(|command| [&b"ACL"[..], b"DRYRUN", user].into_iter().chain(command.dry_run.iter().copied()).collect())
        .collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
    let runs: Result<Vec<Reply>, Why> =
        connection.pipeline(&commands, deadline).await?.into_iter().map(plain).collect();
    if let Ok(runs) = runs {
        // An allowed command is answered by the status `OK`, any other one by a sentence.
        let allowed = DANGEROUS.iter().zip(runs).filter(|(_, run)| *run == Reply::Status(b"OK".to_vec()));
        return Ok(Ok(allowed.map(|(command, _)| command.name).collect()));
    }
    let user = connection.pipeline(&[&[b"ACL", b"GETUSER", user]], deadline).await?.into_iter().next();
    let user = user.map_or(Err(Why::Refused), plain);
    Ok(user.and_then(|user| {
        let rules = user_field(&user, b"commands").and_then(Reply::bytes).ok_or(Why::Refused)?;
        let rules = String::from_utf8_lossy(rules);
        Ok(DANGEROUS.iter().filter(|command| is_allowed(&rules, command.rules)).map(|command| command.name).collect())
    }))
}

/// One field of `ACL GETUSER`: names and values alternate. It holds hashes of passwords, which nobody looks at.
fn user_field<'a>(user: &'a Reply, name: &[u8]) -> Option<&'a Reply> {
    let pairs = user.array()?.chunks_exact(2);
    pairs.filter_map(|pair| Some((pair.first()?, pair.get(1)?))).find(|(key, _)| key.bytes() == Some(name)).map(|p| p.1)
}

fn is_open(user: &Reply) -> Result<bool, Why> {
    let flags = user_field(user, b"flags").and_then(Reply::array).ok_or(Why::Refused)?;
    let has = |flag: &[u8]| flags.iter().any(|found| found.bytes() == Some(flag));
    Ok(has(b"on") && has(b"nopass"))
}

/// Whether rules such as `-@all +ping +@read` allow a command that is in these categories and has these names; the last
/// one that is about it decides.
fn is_allowed(rules: &str, names: &[&str]) -> bool {
    let about = |rule: &&str| rule.get(1..).is_some_and(|name| names.contains(&name));
    rules.split_whitespace().rfind(about).is_some_and(|rule| rule.starts_with('+'))
}

/// Whether a server that listens on these addresses can be reached from other machines.
fn is_exposed(addresses: &[String]) -> bool {
    addresses.iter().map(|address| address.trim_start_matches('-')).any(|address| match address.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback(),
        Err(_) => !address.is_empty() && address != "localhost",
    })
}

/// Whether clients of other machines are served. Protected mode refuses them while the default user needs no password;
/// before version 7 only where no address is set.
fn exposure(facts: &Facts, (major, _minor): (u16, u16)) -> Result<bool, Why> {
    let addresses = facts.bind.as_ref().map_err(|why| *why)?;
    let refuses = facts.protected == Ok(true) && facts.default_open == Ok(true) && major >= PROTECTED_ANYWHERE;
    Ok(!refuses && is_exposed(addresses))
}

/// Puts what was found into the observation.
pub(crate) fn judge(sheet: &mut Sheet, redis: &Redis, facts: &Facts, version: (u16, u16)) {
    let config = redis.config();
    let exposed = if config.address.is_local() { exposure(facts, version) } else { Ok(true) };
    for (name, fact) in [
        ("exposed_bool", exposed),
        ("default_user_open_bool", facts.default_open),
        ("protected_mode_bool", facts.protected),
        ("debug_commands_bool", facts.debug),
    ] {
        match fact {
            Ok(is_so) => sheet.flag(name, is_so),
            Err(why) => sheet.refused(name, why),
        }
    }
    match &facts.dangerous {
        Ok(commands) => sheet.put("dangerous_commands_count", float(u64::try_from(commands.len()).unwrap_or(0))),
        Err(why) => sheet.refused("dangerous_commands_count", *why),
    }
    let passive = of_the_configuration(config, redis.id().as_str());
    let found = passive.into_iter().chain(of_the_server(facts, exposed == Ok(true)));
    found.for_each(|finding| sheet.finding(finding));
}

fn finding(code: &'static str, severity: Severity, message: impl Into<String>, hint: &'static str) -> Finding {
    Finding::new(code, Axis::Risk, severity, message).with_hint(hint)
}

/// What the configuration alone tells, without asking anybody.
fn of_the_configuration(config: &RedisConfig, id: &str) -> Vec<Finding> {
    const CHANGE: &str = "choose a long random password";
    let mut found = Vec::new();
    let weakness = config.password.as_ref().and_then(|password| password.weakness(PASSWORDS_DEFAULT));
    let names = [config.username.as_deref().unwrap_or("default"), id];
    let named = |password: &Secret| names.iter().any(|name| name.eq_ignore_ascii_case(password.expose()));
    if config.password.as_ref().is_some_and(Secret::is_empty) {
        found.push(finding("redis.posture.password_empty", Severity::Critical, "the password is empty", CHANGE));
    } else if weakness == Some(Weakness::Default) {
        let message = "the password is one of the well-known defaults";
        found.push(finding("redis.posture.password_default", Severity::Critical, message, CHANGE));
    } else if config.password.as_ref().is_some_and(named) {
        let message = "the password is the name of the user or of the service";
        found.push(finding("redis.posture.password_weak", Severity::Warning, message, CHANGE));
    } else if weakness.is_some() {
        let message = "the password has fewer than 8 characters";
        found.push(finding("redis.posture.password_weak", Severity::Warning, message, CHANGE));
    }
    if !config.tls && !config.address.is_local() {
        let message = "no TLS on the way to another machine: passwords and data can be read";
        found.push(finding("redis.posture.tls_off", Severity::Warning, message, "set tls-port, and use rediss://"));
    }
    found
}

/// What the server tells. `exposed` is whether other machines can reach it, as far as known.
fn of_the_server(facts: &Facts, exposed: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let milder = |severity| if exposed { severity } else { Severity::Info };
    if facts.default_open == Ok(true) {
        let message = match exposed {
            true => "other machines can reach the server, and it asks nobody for a password",
            false => "the server asks nobody for a password",
        };
        let hint = "set requirepass, or ACL SETUSER default off and a user with a password";
        found.push(finding("redis.posture.no_password", milder(Severity::Critical), message, hint));
    }
    if facts.protected == Ok(false) && exposed {
        let message = "protected mode is off, and other machines can reach the server";
        let hint = "set protected-mode yes, or bind to the addresses that are needed";
        found.push(finding("redis.posture.protected_mode_off", Severity::Warning, message, hint));
    }
    if facts.debug == Ok(true) {
        let message = "DEBUG is allowed from anywhere";
        found.push(finding("redis.posture.debug_command", Severity::Warning, message, "set enable-debug-command no"));
    }
    if let Ok(commands) = &facts.dangerous
        && !commands.is_empty()
    {
        let message = format!("the user may run {}", commands.join(", "));
        let hint = "give the application a user of its own: ACL SETUSER <user> -@dangerous +info";
        found.push(finding("redis.posture.dangerous_commands", milder(Severity::Warning), message, hint));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(config: &RedisConfig) -> Vec<String> {
        of_the_configuration(config, "cache").into_iter().map(|finding| finding.code.into_owned()).collect()
    }

    #[test]
    fn weak_passwords_and_plain_text_are_seen_without_asking() {
        let with =
            |password: &str| codes(&RedisConfig::new("localhost", 6379).with_username("app").with_password(password));
        assert_eq!(with(""), ["redis.posture.password_empty"]);
        assert_eq!(with("Foobared"), ["redis.posture.password_default"]);
        assert_eq!(with("APP"), ["redis.posture.password_weak"]);
        assert_eq!(with("k9#xq"), ["redis.posture.password_weak"]);
        assert!(with("a-long/p@ssword").is_empty());
        assert_eq!(codes(&RedisConfig::new("cache.internal", 6379)), ["redis.posture.tls_off"]);
        assert!(codes(&RedisConfig::new("cache.internal", 6379).with_tls(true)).is_empty());
        assert!(codes(&RedisConfig::unix("/run/redis.sock")).is_empty());
    }

    #[test]
    fn the_last_rule_about_a_command_decides() {
        let flushall = DANGEROUS[1].rules;
        for (rules, allowed) in [
            ("+@all", true),
            ("-@all", false),
            ("+@all -@dangerous", false),
            ("+@all -flushall", false),
            ("-@all +@write", true),
            ("+@all -@write +flushall", true),
            ("-@all +ping +config|get", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(rules, flushall), allowed, "{rules}");
        }
        assert!(is_allowed("-@all +config", DANGEROUS[0].rules));
        assert!(!is_allowed("-@all +config|get", DANGEROUS[0].rules));
    }

    #[test]
    fn only_loopback_is_not_exposed() {
        let exposed = |text: &str| is_exposed(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for text in ["* -::*", "0.0.0.0", "127.0.0.1 10.0.0.7", "::"] {
            assert!(exposed(text), "{text}");
        }
        for text in ["", "127.0.0.1 -::1", "localhost"] {
            assert!(!exposed(text), "{text}");
        }
    }

    #[test]
    fn protected_mode_refuses_other_machines_while_there_is_no_password() {
        let facts = |protected, open| Facts {
            default_open: Ok(open),
            bind: Ok(vec!["*".to_owned(), "-::*".to_owned()]),
            protected: Ok(protected),
            debug: Ok(false),
            dangerous: Ok(Vec::new()),
        };
        for (protected, open, version, exposed) in [
            (true, true, (7, 0), false),
            (true, false, (7, 0), true),
            (false, true, (7, 0), true),
            // An address is set, which switched protected mode off.
            (true, true, (6, 2), true),
        ] {
            assert_eq!(exposure(&facts(protected, open), version), Ok(exposed), "{protected} {open} {version:?}");
        }
        let unseen = Facts { bind: Err(Why::NotPermitted), ..facts(true, true) };
        assert_eq!(exposure(&unseen, (7, 0)), Err(Why::NotPermitted));
    }

    #[test]
    fn what_is_open_to_other_machines_is_worse() {
        let open = || Facts {
            default_open: Ok(true),
            bind: Ok(vec!["*".to_owned()]),
            protected: Ok(false),
            debug: Ok(true),
            dangerous: Ok(vec!["FLUSHALL", "KEYS"]),
        };
        let told = |facts: &Facts, exposed| {
            of_the_server(facts, exposed).into_iter().map(|f| (f.code.into_owned(), f.severity)).collect::<Vec<_>>()
        };
        let expected = [
            ("redis.posture.no_password", Severity::Critical),
            ("redis.posture.protected_mode_off", Severity::Warning),
            ("redis.posture.debug_command", Severity::Warning),
            ("redis.posture.dangerous_commands", Severity::Warning),
        ];
        assert_eq!(told(&open(), true), expected.map(|(code, severity)| (code.to_owned(), severity)));
        let local = told(&open(), false);
        assert_eq!(local[0], ("redis.posture.no_password".to_owned(), Severity::Info));
        assert_eq!(local.len(), 3, "protected mode matters only where others can connect");
        let unknown = Facts {
            default_open: Err(Why::NotPermitted),
            bind: Err(Why::NotPermitted),
            protected: Err(Why::NotPermitted),
            debug: Err(Why::NotOffered),
            dangerous: Err(Why::NotPermitted),
        };
        assert_eq!(told(&unknown, true), [], "what was not seen is not claimed");
    }

    #[test]
    fn a_user_is_open_if_it_is_on_and_has_no_password() {
        let user = |flags: &[&str]| {
            let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
            Reply::Array(vec![bulk("flags"), Reply::Array(flags.iter().map(|flag| bulk(flag)).collect())])
        };
        assert_eq!(is_open(&user(&["on", "nopass"])), Ok(true));
        assert_eq!(is_open(&user(&["off", "nopass"])), Ok(false));
        assert_eq!(is_open(&user(&["on"])), Ok(false));
        assert_eq!(is_open(&Reply::Nil), Err(Why::Refused));
    }
}
