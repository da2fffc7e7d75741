//! The emoji that can be voted for.

/// Short code and character.
pub(crate) const EMOJI: &[(&str, &str)] = &[
    ("doughnut", "🍩"),
    ("joy", "😂"),
    ("sunglasses", "😎"),
    ("nerd_face", "🤓"),
    ("see_no_evil", "🙈"),
    ("poop", "💩"),
    ("ghost", "👻"),
    ("jack_o_lantern", "🎃"),
    ("rocket", "🚀"),
    ("octopus", "🐙"),
    ("crab", "🦀"),
    ("spider_web", "🕸"),
    ("yarn", "🧶"),
    ("thread", "🧵"),
    ("pizza", "🍕"),
    ("burrito", "🌯"),
    ("taco", "🌮"),
    ("cookie", "🍪"),
    ("cake", "🍰"),
    ("beer", "🍺"),
    ("rainbow", "🌈"),
    ("fire", "🔥"),
    ("star", "⭐"),
    ("snowman", "⛄"),
    ("cat", "🐱"),
    ("dog", "🐶"),
    ("fox", "🦊"),
    ("panda", "🐼"),
    ("unicorn", "🦄"),
    ("turtle", "🐢"),
    ("whale", "🐳"),
    ("butterfly", "🦋"),
    ("tada", "🎉"),
    ("trophy", "🏆"),
    ("guitar", "🎸"),
    ("dancer", "💃"),
    ("wave", "👋"),
    ("thumbsup", "👍"),
    ("brain", "🧠"),
    ("100", "💯"),
];

/// Strips the colons around a short code.
pub(crate) fn bare(shortcode: &str) -> &str {
    shortcode.trim_matches(':')
}

pub(crate) fn find(shortcode: &str) -> Option<(&'static str, &'static str)> {
    EMOJI.iter().copied().find(|(code, _)| *code == bare(shortcode))
}

/// The name of the RPC that votes for an emoji: `see_no_evil` is `VoteSeeNoEvil`.
pub(crate) fn method(shortcode: &str) -> String {
    let camel = bare(shortcode).split('_').map(|word| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    });
    std::iter::once("Vote".to_owned()).chain(camel).collect()
}

/// The emoji that an RPC votes for.
pub(crate) fn voted_by(method_name: &str) -> Option<(&'static str, &'static str)> {
    EMOJI.iter().copied().find(|(code, _)| method(code) == method_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_emoji_has_a_method_of_its_own() {
        for (code, _) in EMOJI {
            assert_eq!(voted_by(&method(code)).map(|e| e.0), Some(*code));
        }
        assert_eq!(method(":see_no_evil:"), "VoteSeeNoEvil");
        assert_eq!(voted_by("VoteNobody"), None);
    }
}
