//! What is taken out of what came back, and how pages and waits are read.

use reqwest::header::{HeaderMap, LINK};
use url::Url;

use super::client::{below, next_page};
#[test]
fn the_next_page_is_on_the_same_server_or_it_is_none() {
    let from = Url::parse("https://api.example.com/repos/a/b/commits?page=1").unwrap();
    let next = |link: &str| {
        let headers = HeaderMap::from_iter([(LINK, link.parse().unwrap())]);
        next_page(&headers, &from).map(String::from)
    };
    assert_eq!(
        next(
            "<https://api.example.com/x?page=9>; rel=\"last\", <https://api.example.com/x?page=2>; rel=\"next\""
        ),
        Some("https://api.example.com/x?page=2".to_owned())
    );
    assert_eq!(next("</x?page=2>; rel=\"next\""), Some("https://api.example.com/x?page=2".into()));
    assert_eq!(next("<https://evil.example.com/x>; rel=\"next\""), None);
    assert_eq!(next("<http://api.example.com/x>; rel=\"next\""), None);
    assert_eq!(next("<https://api.example.com/x>; rel=\"prev\""), None);
    assert_eq!(next("nonsense"), None);
}

#[test]
fn a_part_of_a_path_cannot_lead_out_of_its_place() {
    let url = |path: &[&str]| String::from(below("https://api.example.com/v3/", path).unwrap());
    assert_eq!(url(&["repos", "a/b", "c?d#e"]), "https://api.example.com/v3/repos/a%2Fb/c%3Fd%23e");
    assert_eq!(url(&["repos", "%2e%2e"]), "https://api.example.com/v3/repos/%252e%252e");
    assert!(url(&["repos", "..", "x"]).starts_with("https://api.example.com/v3/"));
    assert!(below("nonsense", &[]).is_err());
}
