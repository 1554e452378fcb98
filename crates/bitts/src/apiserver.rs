//! `bitts apiserver`: the in-memory API by itself.

use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use bitts_apiserver::{ApiServer, Collector, Faults, Options, Serve};

use crate::cli::Apiserver;

/// Serves until a signal ends it.
pub(crate) fn run(args: Apiserver) -> Result<ExitCode> {
    let mut options = Options::default();
    if let Some(file) = &args.faults {
        let text = fs::read_to_string(file)
            .with_context(|| format!("reading the faults in {}", file.display()))?;
        options.faults = Faults::parse(&text)
            .with_context(|| format!("{} does not describe faults", file.display()))?;
        options.seed = Some(args.seed);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let kubeconfig = args.write_kubeconfig;
        let api = ApiServer::new(options);
        let _collector = Collector::start(&api);
        let serving = api
            .serve(Serve {
                listen: args.listen,
                insecure: args.insecure,
                write_kubeconfig: Some(kubeconfig.clone()),
            })
            .await?;
        // One line for scripts that wait for it; the kubeconfig is in place by now.
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "ready https://{} KUBECONFIG={}",
            serving.addr(),
            kubeconfig.display()
        )?;
        out.flush()?;
        drop(out);
        bitts_runtime::ended_by_signal().await;
        serving.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}
