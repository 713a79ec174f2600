# The first instructions of a CPU that was started by a message: from real mode to 64-bit code at a kernel address
# (Intel SDM vol. 3A section 9.4.4, section 10.9; AMD APM vol. 2 section 14.6). Copied to a page below 1 MiB, whose
# number is the start-up vector: CS is the page, IP is 0. The words at its end are filled in by trampoline.rs.

    .section .rodata.trampoline, "a", @progbits
    .balign 16
    .globl pliant_trampoline, pliant_trampoline_words, pliant_trampoline_end
    .code16
pliant_trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    xor %ebx, %ebx
    mov %ax, %bx
    shl $4, %ebx                        # EBX: where the page is
    # Only the CPU that was sent for: one that comes late finds the token taken, and sleeps.
    xor %eax, %eax
    xchg %eax, (token - pliant_trampoline)
    test %eax, %eax
    jz late
    lgdtl (gdt_pointer - pliant_trampoline)
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl *(far32 - pliant_trampoline)
late:
    hlt
    jmp late

    .code32
protected:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0x20, %eax                     # PAE
    mov %eax, %cr4
    mov (low_root - pliant_trampoline)(%ebx), %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx               # EFER: LME, NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax               # PG, WP, NE, ET, MP, PE
    mov %eax, %cr0
    ljmpl *(far64 - pliant_trampoline)(%ebx)

    .code64
long:
    mov stack - pliant_trampoline(%rbx), %rsp
    mov argument - pliant_trampoline(%rbx), %rdi
    xor %ebp, %ebp                      # the end of every backtrace
    pushq $2                            # flags: nothing set
    popfq
    call *entry - pliant_trampoline(%rbx)
    ud2

    .balign 16
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff            # 0x08: 32-bit code
    .quad 0x00af9b000000ffff            # 0x10: 64-bit code
    .quad 0x00cf93000000ffff            # 0x18: data
gdt_end:

    .balign 8
pliant_trampoline_words:
stack:
    .quad 0
argument:
    .quad 0
entry:
    .quad 0
low_root:
    .quad 0
far32:
    .long protected - pliant_trampoline # the page's address is added
    .long 0x08
far64:
    .long long - pliant_trampoline      # likewise
    .long 0x10
    .short 0
gdt_pointer:
    .short gdt_end - gdt - 1
    .long gdt - pliant_trampoline       # likewise
token:
    .quad 0
pliant_trampoline_end:
