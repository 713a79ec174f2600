# The entry code: from whatever state a loader leaves the CPU in to one state, then into Rust (entry.rs).
# PVH (Xen docs/misc/pvh.pandoc) and Multiboot2 (2.0 section 3.3) enter in 32-bit protected mode, flat segments,
# paging off, EBX = physical address of the loader's structure, EAX = magic (Multiboot2 only).
# The bootloader crate enters at _start in 64-bit mode with its own page tables, RDI = &BootInfo.

    .set PAGE_TABLE, 7                  # present, writable, user: what the page says decides
    .set LARGE_PAGE, 0x83               # present, writable, 2 MiB
    .set USER, 4
    .set IMAGE_PAGES, 16                # of 2 MiB: the image ends below (link.ld)
    .set DIRECT_MAP_PAGES, 2048
    .set CR0, 0x80010033                # PG, WP, NE, ET, MP, PE
    .set CR4, 0x20                      # PAE
    .set EFER, 0xc0000080
    .set EFER_LME_NXE, 0x900
    .set CPUID_NX, 20                   # leaf 0x80000001, EDX
    .set CPUID_LM, 29
    .set CODE_SELECTOR, 0x10
    .set DATA_SELECTOR, 0x18

    .section .boot.text, "ax", @progbits
    .code32
    .globl pvh_start32
pvh_start32:
    mov $({enter_pvh} - {vma}), %esi
    jmp 1f
    .globl mb2_start32
mb2_start32:
    mov $({enter_multiboot2} - {vma}), %esi
1:  cli
    cld
    mov %eax, %edi                      # kept for Rust: magic in EDI, structure in EBP, function in ESI
    mov %ebx, %ebp
    rdtsc
    mov %eax, ({entry_tsc} - {vma})
    mov %edx, ({entry_tsc} - {vma} + 4)

    mov $0x80000000, %eax
    cpuid
    cmp $0x80000001, %eax
    jb no_long_mode
    mov $0x80000001, %eax
    cpuid
    bt $CPUID_LM, %edx
    jnc no_long_mode
    bt $CPUID_NX, %edx
    jnc no_execute_disable

    # PML4: the image, also at its physical address, which share their tables; direct map (not executable), which `first`
    # completes. For now only the image's pages, and open to ring 3: a host may run a kernel there, and slowly before it
    # has been told of (docs/kvm.md).
    mov $(boot_image_pdpt - {vma} + PAGE_TABLE), %eax
    mov %eax, (boot_pml4 - {vma})
    mov %eax, (boot_pml4 - {vma} + {image_index} * 8)
    mov $(boot_image_pd - {vma} + PAGE_TABLE), %eax
    mov %eax, (boot_image_pdpt - {vma})
    mov %eax, (boot_image_pdpt - {vma} + {image_pdpt_index} * 8)
    mov $(boot_pdpt - {vma} + PAGE_TABLE), %eax
    mov %eax, (boot_pml4 - {vma} + {direct_map_index} * 8)
    movl $0x80000000, (boot_pml4 - {vma} + {direct_map_index} * 8 + 4)
    mov $(LARGE_PAGE + USER), %eax
    mov $(boot_image_pd - {vma}), %edx
    mov $IMAGE_PAGES, %ecx
2:  mov %eax, (%edx)
    add $0x200000, %eax
    add $8, %edx
    dec %ecx
    jnz 2b

    mov $CR4, %eax
    mov %eax, %cr4
    mov $(boot_pml4 - {vma}), %eax
    mov %eax, %cr3
    mov $EFER, %ecx
    rdmsr
    or $EFER_LME_NXE, %eax
    wrmsr
    mov $CR0, %eax
    mov %eax, %cr0
    lgdt (boot_gdt_pointer - {vma})
    ljmp $CODE_SELECTOR, $(long_mode - {vma})

no_long_mode:
    mov $(no_long_mode_text - {vma}), %esi
    jmp refuse
no_execute_disable:
    mov $(no_execute_disable_text - {vma}), %esi
# Prints the text at ESI on COM1 and the debug console, then ends the guest: boot refused.
refuse:
    lodsb
    test %al, %al
    jz 6f
    mov %al, %ah
    outb %al, $0xe9
    mov $0x3fd, %dx                     # COM1 line status: bit 5 = ready for a byte
    mov $100000, %ecx
4:  inb %dx, %al
    test $0x20, %al
    jnz 5f
    dec %ecx
    jnz 4b
5:  mov %ah, %al
    mov $0x3f8, %dx
    outb %al, %dx
    jmp refuse
6:  mov ${refused}, %eax
    outl %eax, $0xf4                    # isa-debug-exit, where there is one
7:  hlt
    jmp 7b

no_long_mode_text:
    .asciz "Pliant: this CPU has no 64-bit mode (CPUID 0x80000001 EDX bit 29), which the guest needs\r\n"
no_execute_disable_text:
    .asciz "Pliant: this CPU has no execute disable (CPUID 0x80000001 EDX bit 20), which the guest needs\r\n"

    .code64
long_mode:
    mov %edi, %eax
    mov %ebp, %edi                      # first argument: the structure; these moves clear the upper halves
    mov %eax, %ebp
    mov %esi, %ebx
    mov %ebp, %esi                      # second argument: magic
    add ${vma}, %rbx
    mov $first, %rax
    movabs $enter, %rdx
    jmp *%rdx                           # leaves the identity mapping

    .globl _start
_start:
    cli
    cld
    rdtsc
    mov %eax, {entry_tsc}(%rip)
    mov %edx, {entry_tsc} + 4(%rip)
    lea {enter_bootloader}(%rip), %rax

# All other ways meet: RAX = Rust function, RDI and RSI = its arguments; the stack is still nobody's.
enter:
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp                      # the end of every backtrace
    pushq $2                            # flags: nothing set, so no interrupts and strings upwards
    popfq
    lgdt boot_gdt_pointer_high(%rip)
    pushq $CODE_SELECTOR
    lea 8f(%rip), %rcx
    pushq %rcx
    lretq
8:  mov $DATA_SELECTOR, %ecx
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %ss
    xor %ecx, %ecx
    mov %ecx, %fs
    mov %ecx, %gs
    mov %rax, %r8
    mov $CR0, %ecx
    mov %rcx, %cr0
    mov $CR4, %ecx
    mov %rcx, %cr4
    xor %eax, %eax
    xor %edx, %edx
    mov $0xc0000100, %ecx               # FS base, then GS base and kernel GS base
    wrmsr
    inc %ecx
    wrmsr
    inc %ecx
    wrmsr
    call *%r8
    ud2

# The ways in that have the tables above: RBX = Rust function, RDI and RSI = its arguments, called as `enter` calls it.
# What the kernel wants to have done first says what every page must have in these tables; then they are completed, by a CPU that
# may be a thousand times faster now.
first:
    push %rdi
    push %rsi
    mov ${vma}, %rdi
    sub $8, %rsp
    call *pliant_kernel_first(%rip)
    add $8, %rsp
    # The direct map: 4 GiB in 2 MiB pages.
    lea boot_pdpt(%rip), %rdx
    mov $(boot_pd - {vma} + PAGE_TABLE), %ecx
    mov $4, %r8d
9:  mov %rcx, (%rdx)
    add $4096, %rcx
    add $8, %rdx
    dec %r8d
    jnz 9b
    mov $DIRECT_MAP_PAGES, %ecx
    lea boot_pd(%rip), %rdx
    call fill
    test %eax, %eax
    jnz 11f                             # the image's are right
    mov $IMAGE_PAGES, %ecx
    lea boot_image_pd(%rip), %rdx
    call fill
    mov %cr3, %rax
    mov %rax, %cr3
11: pop %rsi
    pop %rdi
    jmp *%rbx

# Fills RCX entries from RDX with pages of 2 MiB, from physical address 0 on, that have the bits in RAX besides.
fill:
    mov $LARGE_PAGE, %r8d
    or %rax, %r8
10: mov %r8, (%rdx)
    add $0x200000, %r8
    add $8, %rdx
    dec %ecx
    jnz 10b
    ret

# Xen PV (Xen public/xen.h, "Domain start-up"): ring 3, Xen's page tables, RSI = start_info. Nothing privileged.
    .globl xen_pv_start
xen_pv_start:
    cld
    rdtsc
    mov %eax, {entry_tsc}(%rip)
    mov %edx, {entry_tsc} + 4(%rip)
    lea boot_stack_top(%rip), %rsp
    xor %ebp, %ebp                      # the end of every backtrace
    mov %rsi, %rdi
    call {enter_xen_pv}
    ud2

# The selectors of the GDT that the kernel will load.
    .balign 8
boot_gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff            # 0x10: 64-bit code, ring 0
    .quad 0x00cf93000000ffff            # 0x18: data, ring 0
boot_gdt_end:
    .balign 8
    .short 0, 0, 0
boot_gdt_pointer:
    .short boot_gdt_end - boot_gdt - 1
    .long boot_gdt - {vma}
    .balign 8
    .short 0, 0, 0
boot_gdt_pointer_high:
    .short boot_gdt_end - boot_gdt - 1
    .quad boot_gdt

    .section .bss.boot, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_image_pdpt: .skip 4096
boot_image_pd: .skip 4096
boot_pd: .skip 4 * 4096
    .globl boot_stack_guard, boot_stack_bottom, boot_stack_top
boot_stack_guard: .skip 4096            # for the kernel to unmap
boot_stack_bottom: .skip {stack_bytes}
boot_stack_top:
