//! What is removed from captured text: the rules that ship and those of the configuration. Owns the list; the rules are
//! applied by the agent, and by the bot to the reports that it makes itself.

use diagbot_analysis::redact::{RuleError, Rules};
use diagbot_wire::redaction::Rule;
use serde::Deserialize;

/// The rules that ship, each as (name, pattern, until). Formats are those that their issuers document; where a format has
/// no fixed prefix, the name that stands before the value tells.
const SHIPPED: [(&str, &str, Option<&str>); 19] = [
    (
        "private-key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
        Some(r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"),
    ),
    (
        "url-password",
        r"(?i)[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<secret>[^\s/]+)@",
        None,
    ),
    (
        "oracle-password",
        r"(?i)jdbc:oracle:[a-z]+:[^\s/@]+/(?P<secret>[^\s@]+)@",
        None,
    ),
    (
        "authorization",
        r"(?i)\bauthorization[\x22']?\s*[:=]\s*[\x22']?(?:[a-z]+\s+)?(?P<secret>[^\s\x22',;]+)",
        None,
    ),
    ("bearer", r"(?i)\bbearer\s+(?P<secret>[a-z0-9._~+/-]{16,}=*)", None),
    (
        "jwt",
        r"\beyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*",
        None,
    ),
    (
        "cookie",
        r"(?i)\bcookie[\x22']?\s*[:=]\s*(?P<secret>[^\s=;]+=[^\r\n]+)",
        None,
    ),
    ("aws-access-key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b", None),
    (
        "aws-signature",
        r"(?i)\bx-amz-(?:signature|security-token|credential)=(?P<secret>[^\s&\x22']+)",
        None,
    ),
    ("slack-token", r"\bxox[abeoprs]-[0-9A-Za-z-]{10,}", None),
    ("slack-app-token", r"\bxapp-[0-9A-Za-z-]{10,}", None),
    (
        "slack-webhook",
        r"hooks\.slack\.com/(?P<secret>[A-Za-z]+/[0-9A-Za-z/_-]{10,})",
        None,
    ),
    (
        "github-token",
        r"\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{22,})",
        None,
    ),
    ("google-api-key", r"\bAIza[0-9A-Za-z_-]{35}", None),
    ("stripe-key", r"\b[rs]k_live_[0-9A-Za-z]{16,}", None),
    (
        "named-quoted",
        r"(?i)(?:passw(?:or)?d|passphrase|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|credentials?)(?:\\{0,7}[\x22'])?\s*[=:]\s*\\{0,7}[\x22'](?P<secret>[^\x22'\\]+)",
        None,
    ),
    (
        "named",
        r"(?i)(?:passw(?:or)?d|passphrase|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|credentials?|[?;&]pwd)(?:\\{0,7}[\x22'])?\s*[=:]\s*(?P<secret>[^\s\x22',;&\\][^\s\x22',;&]*)",
        None,
    ),
    // A quoted value whole, with what else is quoted in it.
    (
        "named-json",
        r"(?i)(?:passw(?:or)?d|passphrase|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|credentials?)[\x22']?\s*[=:]\s*\x22(?P<secret>(?:[^\x22\\]|\\.)+)",
        None,
    ),
    (
        "named-single",
        r"(?i)(?:passw(?:or)?d|passphrase|secret|token|api[_.-]?key|access[_.-]?key|private[_.-]?key|credentials?)[\x22']?\s*[=:]\s*'(?P<secret>[^']+)",
        None,
    ),
];

/// What is removed from captured text (`agent.redaction:` in the configuration file).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedactionConfig {
    /// Whether the rules that ship are used. Default: true.
    #[serde(default = "yes")]
    pub shipped: bool,
    /// Further rules: `name`, `pattern` over one line (the `regex` crate's syntax, bytes; a group `secret` is removed alone),
    /// and `until` for blocks that go over lines.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

impl Default for RedactionConfig {
    fn default() -> Self {
        Self {
            shipped: true,
            rules: Vec::new(),
        }
    }
}

fn yes() -> bool {
    true
}

impl RedactionConfig {
    /// The rules, as they travel to the agent.
    pub fn rules(&self) -> Vec<Rule> {
        let shipped = SHIPPED
            .iter()
            .filter(|_| self.shipped)
            .map(|(name, pattern, until)| Rule {
                name: (*name).to_owned(),
                pattern: (*pattern).to_owned(),
                until: until.map(str::to_owned),
            });
        shipped.chain(self.rules.iter().cloned()).collect()
    }

    /// The same, ready for use.
    pub fn compile(&self) -> Result<Rules, RuleError> {
        let rules = self.rules();
        Rules::new(
            rules
                .iter()
                .map(|rule| (rule.name.as_str(), rule.pattern.as_str(), rule.until.as_deref())),
        )
    }
}

#[cfg(test)]
mod tests {
    use diagbot_analysis::redact::Redactor;

    use super::*;

    /// Each line holds one secret, between `«` and `»`.
    const SECRETS: &str = r#"
jdbc:postgresql://app:«hunter2»@db:5432/orders
amqp://app:«p@ss:w0rd»@mq:5672/orders
jdbc:oracle:thin:scott/«tiger»@db:1521:x
-Dspring.datasource.password=«hunter2» -Xmx1g
{"password": "«correct horse battery»", "user": "app"}
{\"apiKey\":\"«0123456789abcdef»\"}
{\"cfg\":\"{\\\"token\\\": \\\"«fedcba9876543210»\\\"}\"}
{"password":"«o'brien\"s 2024»","user":"bob"}
password: '«say "friend" and enter»'
DB_PASSWORD=«hunter2»
GET /x HTTP/1.1 Authorization: Basic «dXNlcjpwYXNz»
authorization: Bearer «abcdefghijklmnopqrstuvwxyz»
curl -H 'X-Api-Key: «0123456789abcdef»'
sent bearer «abcdefghijklmnop.qrst» to upstream
id «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_def» seen
Cookie: «SESSION=0123456789abcdef; theme=dark»
aws_access_key_id = «AKIAIOSFODNN7EXAMPLE»
aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»
https://s3.example/b/k?X-Amz-Credential=«AKIA%2Fx»&X-Amz-Signature=«abcdef0123»
post with «xoxb-123456789012-abcdefGHIJ» failed
socket «xapp-1-A0123-456-abcdef» failed
https://hooks.slack.com/«services/T000/B000/XXXXXXXXXXXX»
remote: «ghp_0123456789abcdefghijABCDEFGHIJ0123456789»
key=«AIzaSyA0123456789abcdefghijklmnopqrstuv»
charge with «sk_live_0123456789abcdef»
«-----BEGIN RSA PRIVATE KEY-----
MIIEpAIBAAKCAQEA
-----END RSA PRIVATE KEY-----»
inline «-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----» and on
{"a":"«-----BEGIN PRIVATE KEY-----\nMIIA\n-----END PRIVATE KEY-----»","b":"«-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----»"}
"#;

    /// Nothing of this is a secret.
    const HARMLESS: &str = r#"
"http-nio-8080-exec-1" #31 daemon prio=5 os_prio=0 cpu=1.52ms tid=0x00007f nid=0x2b waiting on condition
	at java.util.concurrent.locks.LockSupport.park(java.base@17.0.1/LockSupport.java:341)
   1:          2048         131072  com.example.security.TokenStore
PWD=/app
http://user@example.com:8080/path
tcp  0  0 10.0.0.1:8080  10.0.0.2:51234  ESTABLISHED
basic authentication is off, bearer authentication is on
"#;

    #[test]
    fn every_shipped_rule_takes_its_secrets_and_leaves_the_text_around_them() {
        let rules = RedactionConfig::default()
            .compile()
            .expect("the shipped rules are sound");
        let text = SECRETS.replace(['«', '»'], "");
        let clean = Redactor::text(&rules, &text);
        for secret in SECRETS
            .split('«')
            .skip(1)
            .map(|rest| rest.split('»').next().unwrap_or_default())
        {
            for line in secret.lines() {
                assert!(!clean.contains(line), "{line} in {clean}");
            }
        }
        for kept in [
            "@db:5432/orders",
            "-Xmx1g",
            "\"user\": \"app\"",
            "to upstream",
            " and on",
            "DB_PASSWORD=",
        ] {
            assert!(clean.contains(kept), "{kept} in {clean}");
        }
        assert_eq!(Redactor::text(&rules, HARMLESS), HARMLESS);
    }

    #[test]
    fn the_shipped_rules_can_be_left_out_and_own_ones_added() {
        let config: RedactionConfig = serde_saphyr::from_str(
            "{ shipped: false, rules: [{ name: customer, pattern: 'customer-(?P<secret>[0-9]+)' }] }",
        )
        .expect("valid");
        let rules = config.compile().expect("sound");
        let clean = Redactor::text(&rules, "password=x customer-4711");
        assert_eq!(clean, "password=x customer-[redacted:customer]");
    }
}
