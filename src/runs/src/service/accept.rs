//! Acceptance: one create with a short budget, whose repetition is the same run; and the count at the door before it. Never looks
//! into a target cluster.

use std::time::Duration;

use diagbot_api::{
    capture::Explanation,
    request_key::RunName,
    requester::Requester,
    run::{DiagnosticRun, LABEL_RUN},
};
use diagbot_base::{
    failpoint,
    retry::{self, Backoff},
};
use diagbot_cluster::deadline;
use kube::api::{ObjectMeta, PostParams};
use tokio_util::sync::CancellationToken;

use super::{AcceptError, CALL, RunService};
use crate::{admission::TooOften, plan, reason::Reason, request::RunRequest};

/// The one create, among the actions of the bot.
pub(crate) const ACCEPT: &str = "runs.accept";
/// What acceptance may take: Slack shows an error to the person 3 s after the command unless it is acknowledged.
const ACCEPT_BUDGET: Duration = Duration::from_millis(1500);
/// Creates of [`RunService::confirm`]; with its backoff about five minutes, in which the run may still start.
const CONFIRM_ATTEMPTS: u32 = 40;

/// What [`RunService::confirm`] may take after the stop signal: an attempt after the longest pause, and time to say what
/// came of it before tasks are aborted.
const LAST_TRIES: Duration = Duration::from_secs(13);

/// A request that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Name of the run.
    pub name: RunName,
    /// The very request had been recorded before: a redelivery, or a button pressed twice.
    pub repeated: bool,
}

enum Created {
    New,
    Same,
    Other,
}

impl RunService {
    /// Records a request with one create. The same request again, at any time and on any replica, is the same run.
    ///
    /// A crash before the create loses the request unacknowledged, so that it is delivered again; a crash after it loses
    /// nothing.
    pub async fn accept(&self, request: RunRequest) -> Result<Accepted, AcceptError> {
        request
            .check()
            .map_err(|reason| AcceptError::Rejected(reason.explain()))?;
        // A redelivery must not meet the limit that its first delivery passed.
        let name = request.name();
        if self
            .0
            .cache
            .get(self.0.parts.clusters.namespace(), name.as_str())
            .is_none()
        {
            let command = plan::meant(&self.0.parts.catalog, &request.diagnostic);
            let (rate_limiter, channel) = (&self.0.parts.rate_limiter, &request.origin.channel);
            rate_limiter
                .check(&request.requester, channel, command)
                .map_err(|often| AcceptError::Rejected(too_often(often)))?;
        }
        self.create(&request, ACCEPT_BUDGET).await
    }

    /// Counts something that a person looks at. An error says how long to wait.
    pub fn look(&self, person: &Requester) -> Result<(), Explanation> {
        self.0.parts.rate_limiter.look(person).map_err(too_often)
    }

    /// After [`AcceptError::Unconfirmed`]: creates again under the same name until the answer is certain, for some minutes,
    /// and for [`LAST_TRIES`] once the process is told to stop. Unconfirmed again: nobody tries any more.
    pub async fn confirm(
        &self,
        name: &RunName,
        request: RunRequest,
        stop: &CancellationToken,
    ) -> Result<Accepted, AcceptError> {
        debug_assert_eq!(*name, request.name(), "a request has one name");
        let over = async {
            stop.cancelled().await;
            retry::pause(LAST_TRIES).await;
        };
        tokio::select! {
            outcome = self.create_until_certain(&request) => outcome,
            () = over => Err(AcceptError::GivenUp { name: name.clone() }),
        }
    }

    async fn create_until_certain(&self, request: &RunRequest) -> Result<Accepted, AcceptError> {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(8));
        let mut tried = 1;
        loop {
            match self.create(request, CALL).await {
                Err(AcceptError::Unconfirmed { .. }) if tried < CONFIRM_ATTEMPTS => backoff.wait(None).await,
                outcome => return outcome,
            }
            tried += 1;
        }
    }

    async fn create(&self, request: &RunRequest, budget: Duration) -> Result<Accepted, AcceptError> {
        let name = request.name();
        let create = failpoint::around(ACCEPT, self.create_or_read(request, &name));
        let answer = deadline(budget, create).await;
        match answer {
            Ok(Created::New) => {
                self.record_request(request, &name);
                Ok(Accepted { name, repeated: false })
            }
            Ok(Created::Same) => Ok(Accepted { name, repeated: true }),
            Ok(Created::Other) => Err(AcceptError::NameTaken { name }),
            Err(source) if source.is_transient() || source.is_not_found() => {
                Err(AcceptError::Unconfirmed { name, source })
            }
            Err(source) => Err(AcceptError::Refused { name, source }),
        }
    }

    fn record_request(&self, request: &RunRequest, name: &RunName) {
        self.audit_log().add(diagbot_audit::Event::Request {
            run: name.to_string(),
            person: request.requester.user_name(),
            channel: request.origin.channel.clone(),
            diagnostic: request.diagnostic.clone(),
            target: request.target.name.clone(),
        });
    }

    async fn create_or_read(&self, request: &RunRequest, name: &RunName) -> kube::Result<Created> {
        let spec = request.spec();
        let mut run = DiagnosticRun::new(name.as_str(), spec.clone());
        run.metadata = ObjectMeta {
            labels: Some([(LABEL_RUN.to_owned(), name.to_string())].into()),
            namespace: Some(self.0.parts.clusters.namespace().to_owned()),
            ..run.metadata
        };
        match self.0.api.create(&PostParams::default(), &run).await {
            Ok(_) => Ok(Created::New),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let recorded = self.0.api.get(name.as_str()).await?;
                let same = recorded.spec.key == spec.key;
                Ok(if same { Created::Same } else { Created::Other })
            }
            Err(error) => Err(error),
        }
    }
}

fn too_often(TooOften(wait): TooOften) -> Explanation {
    let seconds = wait.as_secs();
    Reason::TooManyRequests { seconds }.explain()
}
