//! The Slack front. Talks to `runs::service` only; decides nothing about permissions or captures.
