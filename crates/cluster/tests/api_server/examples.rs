//! The examples of the guides and of the pages of kinds, as a person gives them to an API server.

use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Those that are not marked as refused: each with its page and its text. `# refused on disk:` is not said of API servers.
pub(crate) fn taken() -> Vec<(String, String, Value)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let kinds = fs::read_dir(docs.join("reference/kinds")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = kinds.chain(["traffic.md", "authorization.md"].map(|page| docs.join(page))).collect();
    pages.sort();
    let mut all = vec![];
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for document in blocks.flat_map(|block| block.split("---\n")) {
            if !document.lines().any(|line| line.starts_with("# refused: ")) {
                let object = serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{e}\n{document}"));
                all.push((page.file_name().unwrap().to_string_lossy().into_owned(), document.to_owned(), object));
            }
        }
    }
    assert!(all.len() > 80, "{}", all.len());
    all
}
