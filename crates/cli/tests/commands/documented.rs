//! The page of authorization, followed from top to bottom: its manifests lie where it says, and each of its commands says what stands below
//! it. `WEFT_UPDATE=1` writes what they say into the page.

use crate::lab::Home;
use std::{fs, path::Path};

/// The lines of a page's blocks, each with its kind, and what stands between them (`None`).
fn blocks(page: &str) -> Vec<(Option<&str>, Vec<&str>)> {
    let mut blocks = vec![(None, vec![])];
    let mut within = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(kind) => {
                within = !within;
                blocks.push((within.then_some(kind), vec![]));
            }
            None => blocks.last_mut().unwrap().1.push(line),
        }
    }
    blocks
}

#[test]
fn the_page_of_authorization_is_followed() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/authorization.md");
    let page = fs::read_to_string(&file).unwrap();
    let home = Home::new();
    let (mut made, mut commands) = (vec![], 0);
    for (kind, lines) in blocks(&page) {
        let Some(kind) = kind else {
            made.extend(lines.into_iter().map(str::to_owned));
            continue;
        };
        made.push(format!("```{kind}"));
        match kind {
            "console" => {
                let asked: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("$ weft ")).collect();
                for (i, words) in asked.iter().enumerate() {
                    let told = home.runs(&words.split(' ').collect::<Vec<_>>());
                    let verdict = told.out.lines().next().unwrap_or_default();
                    let status = match verdict {
                        "allowed" => 0,
                        "denied" => 1,
                        _ if verdict.ends_with(" 0 failed, 0 unknown") => 0,
                        _ => panic!("{words}: {told:?}"),
                    };
                    assert!(told.code == Some(status) && told.err.is_empty(), "{words}: {told:?}");
                    if i > 0 {
                        made.push(String::new());
                    }
                    made.push(format!("$ weft {words}"));
                    made.extend(told.out.lines().map(str::to_owned));
                    commands += 1;
                }
            }
            "yaml" | "yml" => {
                let named = lines[0].strip_prefix("# ").unwrap_or_else(|| panic!("a file without a name: {lines:?}"));
                let to = home.0.join(named);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::write(to, lines.join("\n")).unwrap();
                made.extend(lines.into_iter().map(str::to_owned));
            }
            _ => made.extend(lines.into_iter().map(str::to_owned)),
        }
        made.push("```".to_owned());
    }
    let made = made.join("\n") + "\n";
    assert!(commands > 12, "{commands}");
    if std::env::var_os("WEFT_UPDATE").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let stands = fs::read_to_string(&file).unwrap();
    let differs = made.lines().zip(stands.lines()).find(|(made, stands)| made != stands);
    assert!(made == stands, "docs/authorization.md is not what its commands say: {differs:?}; run with WEFT_UPDATE=1");
}
