//! Screen and keyboard: what a person in front of the machine would have.

use anyhow::{Context, ensure};
use runner::qemu::{Options, Platform};

use crate::lab::{self, PATIENCE};
use crate::row::{Row, Verdict};

/// A few lines of text light up more pixels than this, and a cursor fewer.
const TEXT_PIXELS: usize = 1000;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("screen::vga_text_shows_the_console", "shell", || shows_text(Platform::Pvh)),
        Row::new("screen::bios_framebuffer_shows_the_console", "shell", || shows_text(Platform::Bios))
            .with_disk_image(true),
        Row::new("screen::uefi_framebuffer_shows_the_console", "shell", || shows_text(Platform::Uefi))
            .with_disk_image(true),
        Row::new("keyboard::typed_keys_reach_the_shell", "shell", typed_keys_reach_the_shell),
    ]
}

fn shows_text(platform: Platform) -> anyhow::Result<Verdict> {
    let (running, _) = lab::start_with("shell", &Options::on(platform), |line| {
        if platform == Platform::Pvh {
            line.option("-vga", "std");
        }
    })?;
    running.wait_for("app main after", 0, PATIENCE)?;
    let picture = running.screenshot()?;
    let lit = lit_pixels(&picture).context("QEMU's screenshot is no pixmap")?;
    ensure!(lit > TEXT_PIXELS, "{lit} pixels are lit, fewer than text has");
    Ok(Verdict::Kept)
}

/// Pixels of a PPM that are not of the background's colour, which is the last pixel's.
fn lit_pixels(picture: &[u8]) -> Option<usize> {
    // "P6", width and height, the highest value: three lines.
    let data = picture.strip_prefix(b"P6\n")?.splitn(3, |byte| *byte == b'\n').nth(2)?;
    let (pixels, _) = data.as_chunks::<3>();
    let background = pixels.last()?;
    Some(pixels.iter().filter(|pixel| *pixel != background).count())
}

fn typed_keys_reach_the_shell() -> anyhow::Result<Verdict> {
    let (running, _) = lab::start("shell", &Options::default())?;
    let at = running.wait_for(lab::PROMPT, 0, PATIENCE)?;
    running.press(&["h", "e", "l", "p", "ret"])?;
    running.wait_for("poweroff", at, PATIENCE)?;
    Ok(Verdict::Kept)
}
