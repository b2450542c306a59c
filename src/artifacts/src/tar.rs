//! The headers of an uncompressed archive, as every `tar` reads it. Pure; owns no content.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format"
//! <https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html>. A length of 8 GiB and more does not fit its octal
//! field and is binary, as GNU tar, bsdtar and Python write and read it
//! <https://www.gnu.org/software/tar/manual/html_node/Extensions.html>.

use jiff::Timestamp;

/// Bytes of a header, and what content is filled up to.
const BLOCK: u64 = 512;
/// An archive ends with two blocks of zeros.
pub(super) const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];
/// Longest length, in bytes, of eleven octal digits.
const LONGEST_OCTAL: u64 = 0o777_7777_7777;
/// Longest folder and name.
const LONGEST: (usize, usize) = (155, 100);

/// The header of a plain file. What a name may not hold becomes `_`, so that nothing is unpacked elsewhere.
pub(super) fn header(folder: &str, name: &str, size_bytes: u64, at: Timestamp) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    let mut put = |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, clean(name, LONGEST.1, false).as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size_bytes > LONGEST_OCTAL {
        put(124, &[0x80]);
        put(128, &size_bytes.to_be_bytes());
    } else {
        put(124, format!("{size_bytes:011o}").as_bytes());
    }
    let seconds = u64::try_from(at.as_second()).unwrap_or_default().min(LONGEST_OCTAL);
    put(136, format!("{seconds:011o}").as_bytes());
    put(156, b"0");
    put(257, b"ustar\x0000");
    put(345, clean(folder, LONGEST.0, true).as_bytes());
    // Its own field counts as blanks.
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Zeros behind content of that length.
pub(super) fn padding(size_bytes: u64) -> &'static [u8] {
    let odd = size_bytes % BLOCK;
    &END[..((BLOCK - odd) % BLOCK) as usize]
}

/// Bytes that a file takes in an archive.
pub(super) fn length(size_bytes: u64) -> u64 {
    BLOCK + size_bytes.next_multiple_of(BLOCK)
}

fn clean(text: &str, longest: usize, is_folder: bool) -> String {
    let part = |part: &str| {
        let cleaned: String = part
            .chars()
            .map(|c| {
                let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if fits { c } else { '_' }
            })
            .collect();
        match cleaned.as_str() {
            "" | "." | ".." => "_".to_owned(),
            _ => cleaned,
        }
    };
    let mut all = if is_folder {
        text.split('/').map(part).collect::<Vec<_>>().join("/")
    } else {
        part(text)
    };
    all.truncate(longest);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> &str {
        std::str::from_utf8(bytes).unwrap().trim_end_matches('\0')
    }

    #[test]
    fn a_header_is_as_the_standard_has_it() {
        let at = Timestamp::from_second(1_800_000_000).unwrap();
        let header = header("d-1/0-pod", "threads.txt", 1_000, at);
        assert_eq!(text(&header[..100]), "threads.txt");
        assert_eq!(text(&header[124..136]), "00000001750");
        assert_eq!(text(&header[136..148]), "15322351000");
        assert_eq!(text(&header[345..500]), "d-1/0-pod");
        let told = u32::from_str_radix(text(&header[148..154]), 8).unwrap();
        let others = header[..148].iter().chain(&header[156..]);
        assert_eq!(told, others.map(|byte| u32::from(*byte)).sum::<u32>() + 256);
        assert_eq!(
            (padding(1_000).len(), padding(1_024).len(), length(1_000)),
            (24, 0, 1_536)
        );
    }

    #[test]
    fn a_long_file_has_a_binary_length_and_a_hostile_name_stays_inside() {
        let header = header("../x", "../../etc/passwd", 9 << 30, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (header[124], &header[128..136]),
            (0x80, &(9_u64 << 30).to_be_bytes()[..])
        );
        assert_eq!(
            (text(&header[..100]), text(&header[345..500])),
            (".._.._etc_passwd", "_/x")
        );
    }
}
