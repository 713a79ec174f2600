# What loaders and the host tool look for in the file.

# ELF notes, by which QEMU and Xen find their entry (Xen public/elfnote.h). There is no HYPERCALL_PAGE: the guest
# makes its hypercalls by the instruction itself.

    .macro xen_note type, descriptor:vararg
    .balign 4
    .long 4, 2f - 1f, \type
    .asciz "Xen"
1:  \descriptor
2:  .balign 4
    .endm

    .section .note.Xen, "a", @note
    xen_note 18, .quad pvh_start32 - {vma}      # XEN_ELFNOTE_PHYS32_ENTRY: 8 bytes, QEMU reads a size_t
    xen_note 6, .asciz "Pliant"                 # XEN_ELFNOTE_GUEST_OS
    xen_note 8, .asciz "generic"                # XEN_ELFNOTE_LOADER
    xen_note 5, .asciz "xen-3.0"                # XEN_ELFNOTE_XEN_VERSION: the interface, since 2005
    xen_note 3, .quad {vma}                     # XEN_ELFNOTE_VIRT_BASE: where physical address 0 is mapped
    xen_note 4, .quad 0                         # XEN_ELFNOTE_PADDR_OFFSET: p_paddr is physical
    xen_note 1, .quad xen_pv_start              # XEN_ELFNOTE_ENTRY, before e_entry
    xen_note 17, .long 0x82f                    # XEN_ELFNOTE_SUPPORTED_FEATURES: with bit 11, dom0

# Multiboot2 header (Multiboot2 Specification 2.0 section 3.1): in the first 32 KiB of the file, 8-aligned.
    .section .boot.header, "a", @progbits
    .balign 8
    .globl mb2_header
mb2_header:
    .long 0xe85250d6, 0, mb2_header_end - mb2_header            # magic, architecture i386, length
    .long -(0xe85250d6 + (mb2_header_end - mb2_header))         # checksum
    .balign 8
    .short 3, 0                         # entry address: overrides e_entry, which is the bootloader crate's
    .long 12, mb2_start32 - {vma}
    .balign 8
    .short 5, 1                         # framebuffer, optional: 1024 x 768, 32 bits a pixel
    .long 20, 1024, 768, 32
    .balign 8
    .short 6, 0                         # modules begin on pages of their own
    .long 8
    .balign 8
    .short 0, 0                         # end
    .long 8
mb2_header_end:

# Where the host tool puts the symbol table: magic "PLNTSYM1", whole length in bytes.
    .section .symbols, "a", @progbits
    .balign 8
    .ascii "PLNTSYM1"
    .quad 16
