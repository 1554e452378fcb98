//! What is in the image of the cluster's roles: its size, and for each role how soon it is ready and
//! what memory it holds at rest.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bitts_e2e::control_plane::bitts;
use bitts_e2e::process::Process;
use serde_json::{Map, Value, json};

use crate::figures::Output;
use crate::setup::Fresh;
use crate::usage::{Running, load};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, as an archive that is not compressed.
    #[arg(long)]
    archive: PathBuf,
    /// How often each role is started.
    #[arg(long, default_value_t = 5)]
    starts: usize,
    /// How long a role is at rest before its memory is looked at.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The roles of the image, as the chart starts them.
const ROLES: [&str; 3] = ["binder", "provisioner", "nfs-provisioner"];
/// A role that is not ready by then is broken.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let load_before = load()?;
    let size = std::fs::metadata(&args.archive)?.len() as f64 / 1e6;
    let fresh = Fresh::start().await?;
    let folder = tempfile::tempdir()?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, fresh.api.kubeconfig())?;
    let mut roles = Map::new();
    for role in ROLES {
        let mut starts = Vec::new();
        let mut rest = Value::Null;
        for n in 0..args.starts {
            let listen = free_address()?;
            let mut arguments = vec![
                "run".to_owned(),
                format!("--roles={role}"),
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--listen={listen}"),
            ];
            if role == "provisioner" {
                arguments.push("--node-name=bench".to_owned());
                arguments.push(format!("--disks={}", folder.path().display()));
            }
            let start = Instant::now();
            let mut process = Process::start_as(role, bitts()?, &arguments, folder.path())?;
            while !is_ready(listen) {
                process.check_running()?;
                ensure!(
                    start.elapsed() < PATIENCE,
                    "{role} is not ready. {}",
                    process.last_words()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
            starts.push(start.elapsed().as_secs_f64() * 1e3);
            if n + 1 == args.starts {
                tokio::time::sleep(Duration::from_secs(args.seconds)).await;
                rest = at_rest(listen)?;
            }
        }
        starts.sort_by(f64::total_cmp);
        let best = starts.first().context("it was started")?;
        roles.insert(
            role.to_owned(),
            json!({"ready_ms": best, "ready_ms_of_starts": starts, "at_rest": rest}),
        );
    }
    let result = json!({"image_mb": size, "roles": roles,
        "setup": {"starts": args.starts, "seconds": args.seconds, "load_before": load_before}});
    match args.output {
        Output::Json => println!("{result:#}"),
        Output::Text => {
            println!("the image: {size:.1} MB, not compressed");
            for role in ROLES {
                let role_of = &result["roles"][role];
                let number = |value: &Value| value.as_f64().unwrap_or_default();
                println!(
                    "{role}: ready after {:.0} ms (best of {}), at rest {:.1} MB, {:.1} MB of it its \
                     own and the rest pages of the program",
                    number(&role_of["ready_ms"]),
                    args.starts,
                    number(&role_of["at_rest"]["held_mb"]),
                    number(&role_of["at_rest"]["own_mb"]),
                );
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn at_rest(listen: SocketAddr) -> Result<Value> {
    let running = Running::find("bitts", &format!("--listen={listen}"))?;
    let (held, files) = (running.held_mb()?, running.held_of_files_mb()?);
    Ok(json!({"held_mb": held, "own_mb": held - files}))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Whether it says so itself, as a kubelet would ask it.
fn is_ready(listen: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(listen)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| {
        let status = answer.split(' ').nth(1);
        status == Some("200")
    })
}
