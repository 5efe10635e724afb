//! Keys that tell that their value is a secret: `password`, `DB_PASSWORD`, `spring.datasource.password`, `x-api-key`.
//!
//! Compared without separators and case, so that one list serves objects, environment files, YAML in text, query strings
//! and headers. Words that only refer to a secret (`secretName`, `existingSecret`) are no such keys, nor are the tokens
//! that language models count.

use super::encoded;

/// Longest key that is looked at, in bytes.
pub(super) const KEY_MAX: usize = 64;

/// The whole key, or all of it behind the last `/`.
const WHOLE: &[&str] = &[
    "auth",
    "sig",
    "credentials",
    "secret",
    "dockercfg",
    "dockerconfigjson",
    "xamzcredential",
    "xamzsignature",
    "xgoogsignature",
    "xgoogcredential",
    "pgpassfile",
    "htpasswd",
];

/// The end of a key.
const ENDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "apikey",
    "accesskey",
    "secretkey",
    "secretaccesskey",
    "secretkeybase",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "masterkey",
    "accountkey",
    "storagekey",
    "hmackey",
    "clientkeydata",
    "clientsecret",
    "appsecret",
    "apisecret",
    "sharedsecret",
    "jwtsecret",
    "signingsecret",
    "webhooksecret",
    "tokensecret",
    "oauthsecret",
    "sessionsecret",
    "cookiesecret",
    "adminsecret",
    "authorization",
];

/// What stands before `token` where it is a unit of text.
const COUNTED: &[&str] = &[
    "pad", "eos", "bos", "unk", "sep", "cls", "mask", "max", "min", "next", "stop", "first",
    "last", "per", "special", "image", "output", "input", "prompt", "continue", "page",
];

/// Whether a key's value is a secret, wherever it stands.
pub(super) fn is_secret_key(key: &[u8]) -> bool {
    let name = key.rsplit(|byte| *byte == b'/').next().unwrap_or(key);
    // The shortest is `sig`; most keys of objects end here.
    if name.len() > KEY_MAX || name.len() < 3 || !may_end_so(name) {
        return false;
    }
    let mut buffer = [0_u8; KEY_MAX];
    let mut length = 0;
    for byte in name {
        if !matches!(byte, b'-' | b'_' | b'.') {
            buffer[length] = byte.to_ascii_lowercase();
            length += 1;
        }
    }
    let plain = &buffer[..length];
    WHOLE.iter().any(|word| word.as_bytes() == plain)
        || ENDS.iter().any(|word| plain.ends_with(word.as_bytes()))
        || plain
            .strip_suffix(b"token")
            .is_some_and(|before| !COUNTED.iter().any(|word| before.ends_with(word.as_bytes())))
        || is_pass(name)
}

/// The last letters of all words above.
fn may_end_so(name: &[u8]) -> bool {
    let last = name[name.len() - 1] | 0x20;
    matches!(
        last,
        b'd' | b'y' | b'n' | b't' | b's' | b'e' | b'a' | b'h' | b'g' | b'l'
    )
}

/// `DB_PASS` and `smtp_pass`, but not `bypass` and `first-pass`.
fn is_pass(name: &[u8]) -> bool {
    name.len() > 5 && name[name.len() - 5..].eq_ignore_ascii_case(b"_pass")
}

/// Whether a value under such a key is one to hide. A switch is none, nor is a number of tokens; `auth` is a word, but in
/// a registry's configuration it holds `user:password` in base64.
pub(super) fn hides(key: &[u8], value: &str) -> bool {
    const WORDS: &[&str] = &[
        "", "true", "false", "null", "none", "nil", "enabled", "disabled", "required", "optional",
    ];
    let ends = |word: &str| {
        key.len() >= word.len()
            && key[key.len() - word.len()..].eq_ignore_ascii_case(word.as_bytes())
    };
    if WORDS.iter().any(|word| word.eq_ignore_ascii_case(value)) {
        return false;
    }
    if ends("token") && value.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return false;
    }
    !key.eq_ignore_ascii_case(b"auth") || is_pair(value)
}

/// Whether a text is `user:password` in base64.
pub(super) fn is_pair(text: &str) -> bool {
    text.len() >= 4
        && encoded::base64(text)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .is_some_and(|pair| pair.contains(':') && !pair.chars().any(char::is_control))
}

/// Names of device attributes that identify one piece of hardware: `uuid`, `gpu.example.com/serialNumber`,
/// `chassis-serial`.
pub(super) fn is_device_key(key: &str) -> bool {
    let name = key.rsplit('/').next().unwrap_or(key);
    let has = |word: &str| {
        name.len() >= word.len()
            && name
                .as_bytes()
                .windows(word.len())
                .any(|window| window.eq_ignore_ascii_case(word.as_bytes()))
    };
    let last = name.rsplit(['-', '_', '.']).next().unwrap_or(name);
    name.len() <= 40
        && (has("uuid")
            || has("serialnumber")
            || has("serial-number")
            || has("serial_number")
            || last.eq_ignore_ascii_case("serial"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_secrets_are_known_however_they_are_written() {
        for key in [
            "password",
            "DB_PASSWORD",
            "spring.datasource.password",
            "example.com/db-password",
            "client-key-data",
            "clientSecret",
            "AWS_SECRET_ACCESS_KEY",
            "x-api-key",
            "GITHUB_TOKEN",
            "token",
            "secret",
            "SMTP_PASS",
            ".dockerconfigjson",
            "SECRET_KEY_BASE",
            "Proxy-Authorization",
            "auth",
        ] {
            assert!(is_secret_key(key.as_bytes()), "{key}");
        }
        for key in [
            "secretName",
            "existingSecret",
            "imagePullSecret",
            "tls-secret",
            "max_token",
            "pad-token",
            "nextPageToken",
            "automountServiceAccountTokenX",
            "bypass",
            "first-pass",
            "author",
            "keys",
            "to",
            "",
            "metadata",
            "publicKey",
            "serviceAccountTokens",
        ] {
            assert!(!is_secret_key(key.as_bytes()), "{key}");
        }
    }

    #[test]
    fn switches_and_numbers_are_no_secrets() {
        for (key, value) in [
            ("db-password", "hunter2"),
            ("password", "123456"),
            ("auth", "dXNlcjpwYXNz"),
            ("token", "abc"),
        ] {
            assert!(hides(key.as_bytes(), value), "{key} {value}");
        }
        for (key, value) in [
            ("password", ""),
            ("use-token", "True"),
            ("lookahead-token", "4096"),
            ("auth", "basic"),
        ] {
            assert!(!hides(key.as_bytes(), value), "{key} {value}");
        }
    }

    #[test]
    fn serials_of_hardware_are_known_by_their_key() {
        for key in [
            "uuid",
            "serialNumber",
            "example.com/gpu.serial",
            "chassis_serial",
            "serial-number",
        ] {
            assert!(is_device_key(key), "{key}");
        }
        for key in ["serialized", "serial-console", "uid", "model"] {
            assert!(!is_device_key(key), "{key}");
        }
    }
}
