//! The files in, the manner out.

use super::*;

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("1_Pooling")).unwrap();
    for (file, content) in files {
        std::fs::write(directory.path().join(file), content).unwrap();
    }
    directory
}

fn read(files: &[(&str, &str)]) -> Result<Manner, ModelError> {
    Manner::read(directory(files).path())
}

#[test]
fn without_files_it_is_the_mean_of_256_tokens_and_leaves_no_mark() {
    let manner = read(&[]).unwrap();
    assert_eq!(manner, Manner::default());
    assert_eq!(manner.mark(), "");
    let said = read(&[
        (
            MODULES_FILE,
            r#"[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"}]"#,
        ),
        (POOLING_FILE, r#"{"word_embedding_dimension":384,"pooling_mode_mean_tokens":true}"#),
        (LENGTH_FILE, r#"{"max_seq_length":256,"do_lower_case":false}"#),
    ]);
    assert_eq!(said.unwrap().mark(), "", "the same, said in files");
}

#[test]
fn pooling_length_and_prompts_are_those_of_the_files() {
    let manner = read(&[
        (POOLING_FILE, r#"{"pooling_mode_cls_token":true,"pooling_mode_mean_tokens":false}"#),
        (LENGTH_FILE, r#"{"max_seq_length":512}"#),
        (PROMPTS_FILE, r#"{"prompts":{"query":"query: ","document":"passage: "}}"#),
    ])
    .unwrap();
    let expected = Manner {
        pooling: Pooling::First,
        max_tokens: 512,
        before_question: "query: ".to_owned(),
        before_passage: "passage: ".to_owned(),
    };
    assert_eq!(manner, expected);
    assert_ne!(manner.mark(), "");
}

#[test]
fn the_default_prompt_stands_before_what_has_none_of_its_own() {
    let manner = read(&[(
        PROMPTS_FILE,
        r#"{"prompts":{"query":"ask: ","any":"text: "},"default_prompt_name":"any"}"#,
    )])
    .unwrap();
    assert_eq!((&*manner.before_question, &*manner.before_passage), ("ask: ", "text: "));
}

#[test]
fn what_cannot_be_done_is_named() {
    for (file, content, word) in [
        (MODULES_FILE, r#"[{"type":"sentence_transformers.models.Dense"}]"#, "Dense"),
        (POOLING_FILE, r#"{"pooling_mode_lasttoken":true}"#, POOLING_FILE),
        (
            POOLING_FILE,
            r#"{"pooling_mode_mean_tokens":true,"pooling_mode_cls_token":true}"#,
            POOLING_FILE,
        ),
    ] {
        let error = read(&[(file, content)]).unwrap_err();
        assert!(matches!(&error, ModelError::Unsupported(why) if why.contains(word)), "{error}");
    }
    let error = read(&[(LENGTH_FILE, "{")]).unwrap_err();
    assert!(matches!(error, ModelError::Damaged { file: LENGTH_FILE, .. }), "{error}");
}

#[test]
fn a_model_is_called_as_its_directory_or_as_on_the_hub() {
    for (directory, expected) in [
        ("/srv/models/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("/srv/models/e5-small/", "e5-small"),
        ("/root/hub/models--BAAI--bge-small-en-v1.5/snapshots/5c38", "bge-small-en-v1.5"),
        ("/", "unnamed"),
    ] {
        assert_eq!(name(Path::new(directory)), expected);
    }
}
