//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::features;

/// How it is used.
const USAGE: &str = "usage: vmm [OPTION...] ELF
  --append TEXT          the kernel command line
  --memory MIB           memory [64], at most 3072
  --cpus N               CPUs [1]
  --apic-ids ID,...      their APIC IDs [0,1,...]; above 254 the guest must use x2APIC
  --without FEATURE,...  KVM's features that the guest does not get, or `all`
  --with FEATURE,...     features that a monitor grants: msi-ext-dest-id, realtime
  --hide-kvm             no CPUID leaf of KVM at all
  --late MIB,COUNT,MS    COUNT pages from MIB on come MS milliseconds after their first use (userfaultfd)
  --msr NUMBER,VALUE     a register of the model that KVM does not know reads as VALUE and takes no writes
  --rivals N             N threads contend with the guest's CPUs for one CPU of the host
  --timeout SECONDS      end the guest after that";

/// What the guest is run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) elf: PathBuf,
    pub(crate) append: String,
    pub(crate) megabytes: u64,
    /// The APIC ID of each CPU; the first is the boot CPU's.
    pub(crate) apic_ids: Vec<u32>,
    /// Bits that leaf 0x4000_0001 must not have in EAX.
    pub(crate) without: u32,
    /// Bits that it gets there, and in EDX.
    pub(crate) with: u32,
    pub(crate) hints: u32,
    pub(crate) hide_kvm: bool,
    pub(crate) late: Option<Late>,
    pub(crate) msr: Option<Msr>,
    pub(crate) rivals: usize,
    pub(crate) timeout: Option<Duration>,
}

/// Memory that is not there when it is first used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late {
    /// Guest-physical address of the first page.
    pub(crate) start: u64,
    pub(crate) pages: u64,
    /// How long each page takes.
    pub(crate) delay: Duration,
}

/// A model-specific register of this program's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Msr {
    pub(crate) number: u32,
    pub(crate) value: u64,
}

impl Options {
    /// Reads the command line without the program's name.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self {
            elf: PathBuf::new(),
            append: String::new(),
            megabytes: 64,
            apic_ids: vec![0],
            without: 0,
            with: 0,
            hints: 0,
            hide_kvm: false,
            late: None,
            msr: None,
            rivals: 0,
            timeout: None,
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (argument, attached) = match argument.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (argument.as_str(), None),
            };
            let mut value = || {
                let value = attached.or_else(|| arguments.next().map(String::as_str));
                value.with_context(|| format!("{argument} takes a value\n{USAGE}"))
            };
            match argument {
                "--append" => value()?.clone_into(&mut options.append),
                "--memory" => options.megabytes = number(value()?)?,
                "--cpus" => options.apic_ids = (0..number(value()?)?).collect(),
                "--apic-ids" => options.apic_ids = numbers(value()?)?,
                "--without" => options.without |= features::bits(value()?)?,
                "--with" => {
                    let (with, hints) = features::granted(value()?)?;
                    options.with |= with;
                    options.hints |= hints;
                }
                "--hide-kvm" => options.hide_kvm = true,
                "--late" => options.late = Some(Late::parse(value()?)?),
                "--msr" => options.msr = Some(Msr::parse(value()?)?),
                "--rivals" => options.rivals = number(value()?)?,
                "--timeout" => options.timeout = Some(Duration::from_secs(number(value()?)?)),
                other if other.starts_with('-') => bail!("no option {other}\n{USAGE}"),
                elf => options.elf = elf.into(),
            }
        }
        ensure!(!options.elf.as_os_str().is_empty(), "{USAGE}");
        ensure!((4..=3072).contains(&options.megabytes), "--memory is 4 to 3072");
        ensure!(!options.apic_ids.is_empty(), "a machine has a CPU");
        Ok(options)
    }
}

impl Late {
    fn parse(text: &str) -> Result<Self> {
        let [megabytes, pages, milliseconds] = numbers::<u64>(text)?[..] else {
            bail!("--late takes three numbers: {text:?}")
        };
        let start = megabytes.checked_mul(1 << 20).context("--late is beyond all memory")?;
        Ok(Self { start, pages, delay: Duration::from_millis(milliseconds) })
    }
}

impl Msr {
    fn parse(text: &str) -> Result<Self> {
        let two = text.split_once(',').map(|(number, value)| (hexadecimal(number), hexadecimal(value)));
        let Some((Some(number), Some(value))) = two else {
            bail!("--msr takes two hexadecimal numbers: {text:?}")
        };
        Ok(Self { number: u32::try_from(number).context("no register has such a number")?, value })
    }
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("{text:?} is no number"))
}

fn numbers<T: std::str::FromStr>(text: &str) -> Result<Vec<T>> {
    text.split(',').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options> {
        let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        Options::parse(&words)
    }

    #[test]
    fn every_option_reaches_its_place() {
        let options = parse(
            "--append x=1 --memory=32 --apic-ids 0,300 --without pv-eoi --with realtime --hide-kvm --late 16,2,50 \
             --msr 0x4b564d11,0x7 --rivals 1 --timeout 7 /k.elf",
        )
        .unwrap();
        let late = Late { start: 16 << 20, pages: 2, delay: Duration::from_millis(50) };
        let wanted = Options {
            elf: "/k.elf".into(),
            append: "x=1".into(),
            megabytes: 32,
            apic_ids: vec![0, 300],
            without: 1 << 6,
            with: 0,
            hints: 1,
            hide_kvm: true,
            late: Some(late),
            msr: Some(Msr { number: 0x4b56_4d11, value: 7 }),
            rivals: 1,
            timeout: Some(Duration::from_secs(7)),
        };
        assert_eq!(options, wanted);
        assert_eq!(parse("--cpus 3 k").unwrap().apic_ids, [0, 1, 2]);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "",
            "--cpus",
            "--cpus x k",
            "--cpus 0 k",
            "--memory 2 k",
            "--late 1,2 k",
            "--msr 0x10 k",
            "--msr 16,1 k",
            "--frob k",
            "--without x k",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
