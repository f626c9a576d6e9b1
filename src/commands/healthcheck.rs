//! `healthcheck`: a probe for containers without curl.

use std::time::Duration;

use hyper::{StatusCode, Uri};

use super::{Failure, output};
use crate::client::{HttpClient, reachable};
use crate::config::{AdminArgs, Faults};

/// The flags of `healthcheck`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask whether the process is running (/livez) instead of whether it is ready
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: Args, faults: Faults) -> Result<(), Failure> {
    faults.finish(Some(()))?;
    let path = if args.live { "livez" } else { "readyz" };
    let url = format!("http://{}/{path}", reachable(args.admin.admin_listen));
    let uri: Uri = url
        .parse()
        .map_err(|_| Failure::Failed(format!("{url} is not a valid URL")))?;
    let timeout = Duration::from_secs(2);
    match HttpClient::new().get(&uri, timeout).await {
        Ok((StatusCode::OK, body)) => output::print(String::from_utf8_lossy(&body).trim()).await,
        Ok((status, body)) => {
            let body = String::from_utf8_lossy(&body);
            Err(Failure::Failed(format!(
                "{url} answered {status}: {}",
                body.trim()
            )))
        }
        Err(reason) => Err(Failure::Failed(format!(
            "{url} does not answer ({reason}); check that the service runs and that ZIM2KAFKA_ADMIN_LISTEN is the same"
        ))),
    }
}
