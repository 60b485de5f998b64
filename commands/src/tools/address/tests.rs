//! Which addresses are public, one of each kind and those at the edges.

use super::*;

fn permits(allowed: &[&str], address: &str) -> bool {
    let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
    AddressPolicy::new(allowed).permits(address.parse().unwrap())
}

#[test]
fn public_addresses_are_permitted() {
    let public = [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
    ];
    for address in public {
        assert!(permits(&[], address), "{address}");
    }
}

#[test]
fn whatever_is_not_public_is_refused() {
    let not_public = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.255",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.1.1",
        "198.19.255.255",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1.1.1.1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];
    for address in not_public {
        assert!(!permits(&[], address), "{address}");
    }
}

#[test]
fn an_allowed_network_is_permitted_in_every_form_of_its_addresses() {
    let allowed = ["10.1.0.0/16", "fd00:1::/32"];
    for address in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:1::5"] {
        assert!(permits(&allowed, address), "{address}");
    }
    for address in ["10.2.0.1", "::ffff:10.2.0.1", "fd00:2::5", "127.0.0.1"] {
        assert!(!permits(&allowed, address), "{address}");
    }
}
