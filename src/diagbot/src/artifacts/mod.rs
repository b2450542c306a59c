//! The store of artifacts: uploads, links, verification, and the `diagbot store` server. Knows no runs and no Slack.
