//! The same tests on bitts-apiserver and on a real kube-apiserver
