//! An in-memory Kubernetes API: for the demo, for tests, with faults on request
