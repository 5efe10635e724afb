//! What the kernel's answer to an attempt to open a device says. Pure; everything in this probe that is called access goes through
//! here.
//!
//! The device cgroup is asked before the driver. So EPERM is a refusal by the cgroup, and an answer that only a driver gives
//! shows that the cgroup let the attempt through, even where the driver then said no.

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// It was opened, or the driver was asked.
    Through,
    /// The device cgroup refused.
    Refused,
    /// There is no such file.
    Absent,
    /// Nothing can be said of the cgroup: the mode of the file or of its mount refused, or no driver stands behind the number.
    Open(Doubt),
}

/// Why an attempt says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// EACCES.
    Mode,
    /// ENXIO, ENODEV.
    NoDriver,
    /// Anything else.
    Other,
}

impl Came {
    /// From the word that the tool prints: `ok`, or the name of the error.
    pub(crate) fn of(word: &str) -> Came {
        match word {
            // A driver that is busy, or cannot talk to its device, was reached.
            "ok" | "EBUSY" | "EIO" => Came::Through,
            "EPERM" => Came::Refused,
            "ENOENT" => Came::Absent,
            "EACCES" => Came::Open(Doubt::Mode),
            "ENXIO" | "ENODEV" => Came::Open(Doubt::NoDriver),
            _ => Came::Open(Doubt::Other),
        }
    }

    /// From the word for a file that the container made itself: `mknod EPERM` where it could not even make it.
    pub(crate) fn of_made(word: &str) -> Came {
        match word.strip_prefix("mknod ") {
            // Runtimes may take the right to make devices away; then none can be opened that way.
            Some("EPERM") => Came::Refused,
            Some(_) => Came::Open(Doubt::Other),
            None => Came::of(word),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_says_what_it_says() {
        for (word, came) in [
            ("ok", Came::Through),
            ("EBUSY", Came::Through),
            ("EIO", Came::Through),
            ("EPERM", Came::Refused),
            ("ENOENT", Came::Absent),
            ("EACCES", Came::Open(Doubt::Mode)),
            ("ENXIO", Came::Open(Doubt::NoDriver)),
            ("ENODEV", Came::Open(Doubt::NoDriver)),
            ("ELOOP", Came::Open(Doubt::Other)),
            ("", Came::Open(Doubt::Other)),
        ] {
            assert_eq!(Came::of(word), came, "{word}");
            assert_eq!(Came::of_made(word), came, "{word}");
        }
    }

    #[test]
    fn who_may_not_make_a_device_cannot_open_it_either() {
        assert_eq!(Came::of_made("mknod EPERM"), Came::Refused);
        assert_eq!(Came::of_made("mknod EROFS"), Came::Open(Doubt::Other));
        assert_eq!(Came::of("mknod EPERM"), Came::Open(Doubt::Other));
    }
}
