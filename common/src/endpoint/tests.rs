//! Who gets a socket, who is refused, and what is left behind.

use super::*;

fn private() -> (tempfile::TempDir, Endpoint) {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::at(directory.path().join("q.sock"));
    (directory, endpoint)
}

#[test]
fn a_listener_is_private_and_leaves_nothing_behind() {
    let (directory, _) = private();
    let endpoint = Endpoint::at(directory.path().join("made/q.sock"));
    let listener = endpoint.bind().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&directory.path().join("made")), 0o700);
    assert_eq!(mode(endpoint.path()), 0o600);
    endpoint.connect().unwrap();
    assert!(matches!(listener.accept().unwrap(), Accepted::Client(_, Some(pid)) if pid == std::process::id()));
    drop(listener);
    assert_eq!(std::fs::read_dir(directory.path().join("made")).unwrap().count(), 0);
    assert!(matches!(endpoint.connect(), Err(EndpointError::NoCoordinator { .. })));
}

#[test]
fn a_live_socket_is_never_displaced_even_when_its_lock_file_is_gone() {
    let (_directory, endpoint) = private();
    let listener = endpoint.bind().unwrap();
    let own_pid = Some(std::process::id());
    assert!(matches!(endpoint.bind(), Err(EndpointError::InUse { pid, .. }) if pid == own_pid));
    std::fs::remove_file(endpoint.path().with_extension("sock.lock")).unwrap();
    assert!(matches!(endpoint.bind(), Err(EndpointError::InUse { pid, .. }) if pid == own_pid));
    endpoint.connect().unwrap();
    listener.accept().unwrap();
}

#[test]
fn a_stale_socket_is_taken_over() {
    let (_directory, endpoint) = private();
    drop(UnixListener::bind(endpoint.path()).unwrap());
    assert!(matches!(endpoint.connect(), Err(EndpointError::NoCoordinator { why, .. }) if why.contains("gone")));
    let _listener = endpoint.bind().unwrap();
    endpoint.connect().unwrap();
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let (directory, endpoint) = private();
    std::fs::write(endpoint.path(), "precious").unwrap();
    let refused = endpoint.bind().unwrap_err().to_string();
    assert!(refused.contains("is not a socket"), "{refused}");
    assert_eq!(std::fs::read(endpoint.path()).unwrap(), b"precious");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no lock file is left beside it");
    let link = Endpoint::at(directory.path().join("link.sock"));
    std::os::unix::fs::symlink(endpoint.path(), link.path()).unwrap();
    let refused = link.bind().unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
}

#[test]
fn a_directory_that_others_can_write_or_a_link_to_one_is_refused() {
    let (directory, endpoint) = private();
    let chmod = |mode| std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o770);
    let refused = endpoint.bind().unwrap_err().to_string();
    assert!(refused.contains("can be written by others (mode 0770)"), "{refused}");
    chmod(0o700);
    std::fs::create_dir(directory.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
    let refused = Endpoint::at(directory.path().join("link/q.sock")).bind().unwrap_err().to_string();
    assert!(refused.contains("symbolic link"), "{refused}");
}

#[test]
fn a_path_too_long_for_a_socket_says_its_length_and_the_limit() {
    let long = Endpoint::at(format!("/tmp/{}", "x".repeat(200)));
    for refused in [long.bind().unwrap_err(), long.connect().unwrap_err()] {
        let words = refused.to_string();
        assert!(words.contains("205 bytes") && words.contains(&(SOCKET_PATH_BYTES_MAX - 1).to_string()), "{words}");
    }
}
