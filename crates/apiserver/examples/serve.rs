//! Serves the API until Ctrl-C and writes a kubeconfig: `cargo run --example serve -- kubeconfig.yaml`.
//! Then `kubectl --kubeconfig kubeconfig.yaml get pv,pvc`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use bitts_apiserver::{ApiServer, Collector, Serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args()
        .nth(1)
        .ok_or("say where to write the kubeconfig")?;
    let api = ApiServer::default();
    let _collector = Collector::start(&api);
    let serving = api
        .serve(Serve {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            insecure: false,
            write_kubeconfig: Some(path.clone().into()),
        })
        .await?;
    println!("https://{} is up; KUBECONFIG={path}", serving.addr());
    tokio::signal::ctrl_c().await?;
    serving.stop().await;
    Ok(())
}
