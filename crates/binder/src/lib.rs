//! The binder: which claim gets which volume, phases and reclaim
