//! The node agent: mounts what the node's pods need and takes it down again
