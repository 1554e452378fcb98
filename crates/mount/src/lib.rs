//! Linux mounts as a library: mount table, bind mounts, safe paths, private roots
