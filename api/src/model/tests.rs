//! What is said of a model that cannot be had, and how often.

use super::*;

#[test]
fn only_what_has_changed_is_said() {
    let (told, trouble) = watch::channel(None);
    let unusable = |why: &str| Trouble::Unusable(why.to_owned());

    let said: Vec<bool> = [
        Trouble::Missing,
        Trouble::Missing,
        unusable("damaged"),
        unusable("damaged"),
        unusable("too new"),
        Trouble::Missing,
        Trouble::Missing,
    ]
    .map(|trouble| tell(&told, trouble))
    .into();

    assert_eq!(said, [true, false, true, false, true, true, false]);
    assert_eq!(*trouble.borrow(), Some(Trouble::Missing));
}

#[tokio::test]
async fn a_folder_without_a_model_and_one_with_a_broken_one_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let named = || Some(folder.path().to_owned());

    let Err(missing) = load(named(), None).await else { panic!("there is no model there") };
    assert_eq!(missing, Trouble::Missing);

    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::write(folder.path().join(file), "no model").unwrap();
    }
    let Err(broken) = load(named(), None).await else { panic!("that is no model") };
    assert!(matches!(&broken, Trouble::Unusable(why) if why.contains("config.json")), "{broken}");
}
