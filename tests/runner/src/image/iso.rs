//! A bootable ISO with GRUB, for BIOS and UEFI, that loads the guest by the multiboot2 protocol.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::KIND;
use crate::guest::Guest;
use crate::host::cache;
use crate::host::process::{clean, output};

/// Where the ISO keeps the ELF.
const KERNEL: &str = "/boot/kernel.elf";

/// The ISO, made if it is not in the cache.
pub(super) fn make(guest: &Guest, command_line: &str) -> Result<PathBuf> {
    let config = grub_config(command_line)?;
    let key = cache::digest(&[guest.sha256.as_bytes(), config.as_bytes()]);
    let key = format!("{}-{}.iso", guest.name, &key[..16]);
    let iso = cache::get_or_make(KIND, &key, |path| {
        let tree = path.with_extension("tree");
        cache::remove(&tree)?;
        fs::create_dir_all(tree.join("boot/grub"))?;
        fs::write(tree.join("boot/grub/grub.cfg"), &config)?;
        fs::copy(&guest.elf, tree.join(&KERNEL[1..]))?;
        let mut grub = clean(Path::new("grub-mkrescue"));
        // Only what booting takes: fonts, themes and translations would be most of the ISO.
        grub.args(["--fonts=", "--themes=", "--locales=", "--compress=no", "-o"]).arg(path).arg(&tree);
        let made = output(&mut grub);
        cache::remove(&tree)?;
        made.map(|_| ())
    })?;
    cache::prune(KIND, cache::IMAGES_KEPT);
    holds_the_same_elf(&iso, guest)?;
    Ok(iso)
}

/// GRUB's script: no waiting, no graphics of its own, the machine's consoles (UEFI's own includes the serial line).
fn grub_config(command_line: &str) -> Result<String> {
    let arguments = quote(command_line)?;
    Ok(format!(
        "set timeout=0\nset default=0\ninsmod all_video\nset gfxpayload=keep\nserial --unit=0 --speed=115200\n\
         terminal_input serial console\n\
         if [ \"$grub_platform\" = efi ]; then terminal_output console; else terminal_output serial console; fi\n\
         menuentry pliant {{\n multiboot2 {KERNEL} {arguments}\n boot\n}}\n"
    ))
}

/// The command line as GRUB's script language wants it, so that GRUB hands over the words that were meant.
/// Double quotes mean to GRUB what they mean to the kernel.
fn quote(command_line: &str) -> Result<String> {
    ensure!(
        !command_line.contains(['\n', '\r', '\0']),
        "GRUB cannot pass a line end or a zero byte: {command_line:?}"
    );
    let mut quoted = String::new();
    let mut inside = false;
    for c in command_line.chars() {
        let special = if inside { "$\\" } else { "$\\;|&<>{}'#" };
        if special.contains(c) {
            quoted.push('\\');
        }
        inside ^= c == '"';
        quoted.push(c);
    }
    ensure!(!inside, "a double quote is not closed: {command_line:?}");
    Ok(quoted)
}

/// The file in the ISO is the ELF that every other way in boots.
fn holds_the_same_elf(iso: &Path, guest: &Guest) -> Result<()> {
    let copy = iso.with_extension(format!("elf{}-{:?}", std::process::id(), std::thread::current().id()));
    let mut xorriso = clean(Path::new("xorriso"));
    xorriso.args(["-osirrox", "on", "-indev"]).arg(iso).args(["-extract", KERNEL]).arg(&copy);
    output(&mut xorriso)?;
    let found = cache::file_sha256(&copy).context("the ISO holds no kernel")?;
    cache::remove(&copy)?;
    ensure!(
        found == guest.sha256,
        "{} holds a kernel with sha256 {found}, not {}",
        iso.display(),
        guest.sha256
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grub_gets_the_command_line_and_waits_for_nobody() {
        let config = grub_config("log=debug app.name=\"a b\"").unwrap();
        assert!(config.contains("multiboot2 /boot/kernel.elf log=debug app.name=\"a b\"\n"), "{config}");
        assert!(config.starts_with("set timeout=0\n"));
    }

    #[test]
    fn nothing_in_the_command_line_is_script() {
        assert_eq!(quote("a;b $c {d}").unwrap(), r"a\;b \$c \{d\}");
        assert_eq!(quote(r#""x; y" \"#).unwrap(), r#""x; y" \\"#);
        assert!(quote("a\nreboot").is_err());
        assert!(quote("\"open").is_err());
    }
}
