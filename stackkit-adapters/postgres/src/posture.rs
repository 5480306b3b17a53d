//! What lets others in or loses data, seen without trying anything: the configuration, and what the own session may read.

use stackkit_core::Secret;
use stackkit_core::health::{Axis, Finding, Severity};

use crate::config::{PostgresConfig, TlsMode};
use crate::metrics::Fields;

/// A setting, the value that is a risk, and what to say about it.
struct Setting {
    name: &'static str,
    bad: &'static [&'static str],
    code: &'static str,
    severity: Severity,
    message: &'static str,
    hint: &'static str,
}

/// Settings that lose data in a crash, or keep passwords badly.
const SETTINGS: [Setting; 4] = [
    Setting {
        name: "fsync",
        bad: &["off"],
        code: "pg.fsync.off",
        severity: Severity::Critical,
        message: "fsync is off: a crash of the machine can destroy the whole cluster",
        hint: "set fsync = on",
    },
    Setting {
        name: "full_page_writes",
        bad: &["off"],
        code: "pg.posture.full_page_writes",
        severity: Severity::Warning,
        message: "full_page_writes is off: a crash can leave torn pages, unless the file system never tears one",
        hint: "set full_page_writes = on",
    },
    Setting {
        name: "synchronous_commit",
        bad: &["off"],
        code: "pg.posture.synchronous_commit",
        severity: Severity::Info,
        message: "synchronous_commit is off: a crash loses the last transactions that were reported as committed",
        hint: "set synchronous_commit = on, or turn it off only for the transactions that may be lost",
    },
    Setting {
        name: "password_encryption",
        // What `on` meant until version 13.
        bad: &["md5", "on"],
        code: "pg.posture.md5",
        severity: Severity::Warning,
        message: "passwords that are set from now on are kept as MD5 hashes, which log in by themselves when stolen",
        hint: "set password_encryption = 'scram-sha-256', then set the passwords again",
    },
];

/// What the configuration and the server's settings say. Nothing is tried, and no password but the own one is looked at.
pub(crate) fn findings(config: &PostgresConfig, facts: &Fields) -> Vec<Finding> {
    let risk = |code, severity, message: &str, hint: &str| {
        Finding::new(code, Axis::Risk, severity, message).with_hint(hint.to_owned())
    };
    let mut findings = configured(config);
    let met = |setting: &&Setting| facts.text(setting.name).is_some_and(|value| setting.bad.contains(&value));
    let setting = |setting: &Setting| risk(setting.code, setting.severity, setting.message, setting.hint);
    findings.extend(SETTINGS.iter().filter(met).map(setting));
    if facts.is("superuser") {
        let message = "the service logs in as a superuser: whoever takes it over owns the server";
        findings.push(risk(
            "pg.posture.superuser",
            Severity::Warning,
            message,
            "use a role that owns no more than its schema; for probes, one with pg_monitor",
        ));
    }
    if !config.host.is_private() && facts.text("own_ssl").is_some() && !facts.is("own_ssl") {
        let message = "this session crosses a network without TLS";
        findings.push(risk("pg.posture.session_unencrypted", Severity::Critical, message, "set sslmode=verify-full"));
    }
    findings
}

/// What the configuration alone says, without I/O; [`PostgresConfig::validate`] tells the same before the start.
fn configured(config: &PostgresConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_empty = config.password.as_ref().is_some_and(Secret::is_empty);
    if let Some(fault) = config.password_fault() {
        let (code, severity, message) = match fault.code.as_str() {
            _ if is_empty => ("pg.posture.password_empty", Severity::Critical, "the password is empty".to_owned()),
            "postgres.password.default" => ("pg.posture.password_default", Severity::Critical, fault.message),
            _ => ("pg.posture.password_weak", Severity::Warning, fault.message),
        };
        findings.push(Finding::new(code, Axis::Risk, severity, message).with_hint("set another password"));
    }
    let optional = matches!(config.tls, TlsMode::Disable | TlsMode::Prefer);
    if !config.host.is_private() && optional {
        let message = "the host is not private and TLS is optional or off";
        findings.push(
            Finding::new("pg.posture.tls", Axis::Risk, Severity::Warning, message).with_hint("set sslmode=verify-full"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(config: &PostgresConfig, facts: &[(&str, &str)]) -> Vec<String> {
        let found = findings(config, &Fields::of(facts));
        assert!(found.iter().all(|finding| finding.axis == Axis::Risk && finding.hint.is_some()));
        found.into_iter().map(|finding| finding.code.into_owned()).collect()
    }

    fn local() -> PostgresConfig {
        PostgresConfig::new("localhost", "shop").with_user("app")
    }

    #[test]
    fn a_sound_server_has_no_findings() {
        let facts = [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("password_encryption", "scram-sha-256"),
            ("superuser", "0"),
            ("own_ssl", "0"),
        ];
        assert_eq!(codes(&local().with_password("k9#xq-and-more"), &facts), Vec::<String>::new());
    }

    #[test]
    fn settings_that_lose_data_or_passwords_are_told() {
        assert_eq!(codes(&local(), &[("fsync", "off")]), ["pg.fsync.off"]);
        assert_eq!(codes(&local(), &[("full_page_writes", "off")]), ["pg.posture.full_page_writes"]);
        assert_eq!(codes(&local(), &[("synchronous_commit", "off")]), ["pg.posture.synchronous_commit"]);
        assert_eq!(codes(&local(), &[("password_encryption", "md5")]), ["pg.posture.md5"]);
        assert_eq!(codes(&local(), &[("superuser", "1")]), ["pg.posture.superuser"]);
    }

    #[test]
    fn passwords_are_judged_without_their_text() {
        for (password, code, severity) in [
            ("", "pg.posture.password_empty", Severity::Critical),
            ("app", "pg.posture.password_default", Severity::Critical),
            ("k9#xq", "pg.posture.password_weak", Severity::Warning),
        ] {
            let found = findings(&local().with_password(password), &Fields::default());
            assert_eq!((found.len(), found[0].code.as_ref(), found[0].severity), (1, code, severity));
        }
        let found = findings(&local().with_password("k9#xq"), &Fields::default());
        assert!(!format!("{found:?}").contains("k9#xq"));
    }

    #[test]
    fn a_network_without_tls_is_told_by_configuration_and_by_session() {
        let remote = PostgresConfig::new("db.example.com", "shop").with_user("app");
        assert_eq!(codes(&remote, &[("own_ssl", "1")]), ["pg.posture.tls"]);
        assert_eq!(codes(&remote, &[("own_ssl", "0")]), ["pg.posture.tls", "pg.posture.session_unencrypted"]);
        assert_eq!(codes(&remote.with_tls(TlsMode::VerifyFull), &[("own_ssl", "1")]), Vec::<String>::new());
        assert_eq!(codes(&local(), &[("own_ssl", "0")]), Vec::<String>::new());
    }
}
