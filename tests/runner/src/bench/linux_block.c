/* What Linux makes of the same disk: 4 KiB at a time with O_DIRECT, by pread and pwrite one at a time, by io_submit deeper.
   linux_block DEVICE MILLISECONDS prints a line a case, as the guest bench_block does (see apps/bench_block). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <linux/fs.h>
#include "linux.h"

enum { BLOCK = 4096, MOST = 32 };

static uint64_t state, blocks;
static int is_random;

static uint64_t next(void)
{
    if (!is_random)
        return ++state % blocks * BLOCK;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1dull >> 32) % blocks * BLOCK;
}

/* Interrupts of virtio disks so far. */
static uint64_t interrupts(void)
{
    char line[512];
    uint64_t sum = 0;
    FILE *file = fopen("/proc/interrupts", "r");
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, "virtio") && strstr(line, "-req"))
            sum += strtoull(strchr(line, ':') + 1, NULL, 10);
    if (file)
        fclose(file);
    return sum;
}

static uint64_t one_by_one(int file, char *data, int is_write, uint64_t end)
{
    uint64_t done = 0;
    while (now_ns() < end) {
        ssize_t count = is_write ? pwrite(file, data, BLOCK, next()) : pread(file, data, BLOCK, next());
        if (count != BLOCK)
            fail("request");
        done++;
    }
    return done;
}

static uint64_t many(int file, char *data, int is_write, uint64_t end)
{
    aio_context_t context = 0;
    struct iocb requests[MOST], *sent[MOST];
    struct io_event answers[MOST];
    uint64_t done = 0;
    if (syscall(SYS_io_setup, MOST, &context))
        fail("io_setup");
    memset(requests, 0, sizeof requests);
    for (int slot = 0; slot < MOST; slot++) {
        requests[slot].aio_fildes = file;
        requests[slot].aio_lio_opcode = is_write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
        requests[slot].aio_buf = (uintptr_t)(data + slot * BLOCK);
        requests[slot].aio_nbytes = BLOCK;
        requests[slot].aio_offset = next();
        sent[slot] = &requests[slot];
    }
    int count = MOST, in_flight = 0;
    for (;;) {
        if (count && syscall(SYS_io_submit, context, count, sent) != count)
            fail("io_submit");
        in_flight += count;
        if (!in_flight)
            break;
        int answered = syscall(SYS_io_getevents, context, 1, MOST, answers, NULL);
        if (answered < 1)
            fail("io_getevents");
        in_flight -= answered;
        done += answered;
        int is_over = now_ns() >= end;
        count = 0;
        for (int at = 0; at < answered; at++) {
            struct iocb *request = (struct iocb *)(uintptr_t)answers[at].obj;
            if (answers[at].res != BLOCK) {
                errno = -answers[at].res;
                fail("request");
            }
            if (is_over)
                continue;
            request->aio_offset = next();
            sent[count++] = request;
        }
    }
    syscall(SYS_io_destroy, context);
    return done;
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    int file = open(arguments[1], O_RDWR | O_DIRECT);
    uint64_t bytes = 0, ns = strtoull(arguments[2], NULL, 10) * 1000000;
    char *data = aligned_alloc(BLOCK, BLOCK * MOST);
    if (file < 0 || ioctl(file, BLKGETSIZE64, &bytes) || !data)
        fail(arguments[1]);
    blocks = bytes / BLOCK;
    memset(data, 0x5a, BLOCK * MOST);
    for (is_random = 0; is_random < 2; is_random++)
        for (int is_write = 0; is_write < 2; is_write++)
            for (int depth = 1; depth <= MOST; depth += MOST - 1) {
                state = 1;
                uint64_t before = interrupts(), start = now_ns();
                uint64_t done = (depth == 1 ? one_by_one : many)(file, data, is_write, start + ns);
                uint64_t elapsed = now_ns() - start;
                printf("block linux %s %s %d %llu - %llu\n", is_random ? "random" : "sequential", is_write ? "write" : "read",
                       depth, (unsigned long long)(done * 1000000000ull / elapsed),
                       (unsigned long long)((interrupts() - before) * 1000 / (done ? done : 1)));
            }
    return 0;
}
