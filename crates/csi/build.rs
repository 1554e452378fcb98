//! Makes the messages from the interface's own definition; no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/csi.proto");
    let definition = protox::compile(["csi.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .btree_map(".")
        // They are in the definition, and written for another documentation tool.
        .disable_comments(["."])
        .compile_fds(definition)?;
    Ok(())
}
