/* What threads, locks, timers and memory cost under Linux: the rows of the guest bench (see apps/bench/src/threads), by the same names.
   linux_threads CPUS prints "NAME: LEAST (MEDIAN) ns, 0 cycles, INTERRUPTS interrupts, IPIS IPIs" for each. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "linux.h"

enum { ROWS = 15, MOST = 200, TURNS = 500, PAGE = 4096, PAGES = 100 };

static int cpus;
static atomic_int stop, running;

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        fail("sched_setaffinity");
}

/* Interrupts of all CPUs so far; of these, IPIs: rescheduling and function calls (TLB flushes are among the latter). */
static void interrupts(uint64_t *all, uint64_t *ipis)
{
    char line[512];
    FILE *file = fopen("/proc/interrupts", "r");
    *all = *ipis = 0;
    while (file && fgets(line, sizeof line, file)) {
        char *at = strchr(line, ':'), *label = line + strspn(line, " ");
        int is_ipi = !strncmp(label, "RES", 3) || !strncmp(label, "CAL", 3);
        if (!at || !(is_ipi || !strncmp(label, "LOC", 3) || (*label >= '0' && *label <= '9')))
            continue;
        at++;
        for (int cpu = 0; cpu < cpus; cpu++) {
            uint64_t count = strtoull(at, &at, 10);
            *all += count;
            *ipis += is_ipi ? count : 0;
        }
    }
    if (file)
        fclose(file);
}

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t each[MOST], all_before, ipis_before;
static int rows;
static double operations;

static void begin(void)
{
    rows = operations = 0;
    interrupts(&all_before, &ipis_before);
}

static void put(uint64_t ns, int count)
{
    each[rows++] = ns / count;
    operations += count;
}

static void end(const char *name)
{
    uint64_t all, ipis;
    interrupts(&all, &ipis);
    qsort(each, rows, sizeof *each, ascending);
    printf("%s: %llu (%llu) ns, 0 cycles, %.2f interrupts, %.2f IPIs\n", name, (unsigned long long)each[0],
           (unsigned long long)each[rows / 2], (all - all_before) / operations, (ipis - ipis_before) / operations);
    fflush(stdout);
}

static void nothing(void)
{
}

/* Measures `run`, which does `count` operations, after `prepare`, which is not measured. */
static void row(const char *name, int count, void (*prepare)(void), void (*run)(void))
{
    prepare();
    run();
    begin();
    for (int number = 0; number < ROWS; number++) {
        prepare();
        uint64_t start = now_ns();
        run();
        put(now_ns() - start, count);
    }
    end(name);
}

static pthread_t start(void *(*body)(void *), int cpu)
{
    pthread_t thread;
    pthread_attr_t attributes;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    pthread_attr_init(&attributes);
    pthread_attr_setaffinity_np(&attributes, sizeof set, &set);
    if ((errno = pthread_create(&thread, &attributes, body, NULL)))
        fail("pthread_create");
    return thread;
}

/* Memory. */

static void *volatile piece;
static char *pages;

static void allocate(void)
{
    for (int number = 0; number < 1000; number++) {
        piece = malloc(64);
        free(piece);
    }
}

static char *map(size_t length)
{
    char *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

static void map_write_unmap(void)
{
    char *taken[PAGES];
    for (int number = 0; number < PAGES; number++)
        *(taken[number] = map(PAGE)) = 1;
    for (int number = 0; number < PAGES; number++)
        munmap(taken[number], PAGE);
}

static void forget_pages(void)
{
    madvise(pages, PAGES * PAGE, MADV_DONTNEED);
}

static void touch_pages(void)
{
    for (int number = 0; number < PAGES; number++)
        *(volatile char *)(pages + number * PAGE) = 1;
}

static void memory(void)
{
    row("allocate and free 64 bytes", 1000, nothing, allocate);
    row("a page: allocate, write, free", PAGES, nothing, map_write_unmap);
    pages = map(PAGES * PAGE);
    madvise(pages, PAGES * PAGE, MADV_NOHUGEPAGE);
    row("page fault", PAGES, forget_pages, touch_pages);
}

/* Threads that take turns: on one CPU if there is one, else each on its own. */

static void yield(void)
{
    for (int turn = 0; turn < TURNS; turn++)
        sched_yield();
}

static void *yielder(void *nobody)
{
    while (!stop)
        sched_yield();
    return nobody;
}

static atomic_int ball;

static void wait_while(int value)
{
    while (ball == value)
        syscall(SYS_futex, &ball, FUTEX_WAIT_PRIVATE, value, NULL);
}

static void play(int value)
{
    ball = value;
    syscall(SYS_futex, &ball, FUTEX_WAKE_PRIVATE, 1);
}

static void *player(void *nobody)
{
    for (;;) {
        wait_while(0);
        if (ball == 2)
            return nobody;
        play(0);
    }
}

static void wake(void)
{
    for (int turn = 0; turn < TURNS; turn++) {
        play(1);
        wait_while(1);
    }
}

static int to[2], from[2];

static void *echo(void *nobody)
{
    char byte;
    while (read(to[0], &byte, 1) == 1)
        if (write(from[1], &byte, 1) != 1)
            fail("pipe");
    return nobody;
}

static void call(void)
{
    char byte = 0;
    for (int turn = 0; turn < TURNS; turn++)
        if (write(to[1], &byte, 1) != 1 || read(from[0], &byte, 1) != 1)
            fail("pipe");
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static volatile int count;

/* First the other comes to wait while the lock is held, then it takes the lock. */
static void hold(void)
{
    pthread_mutex_lock(&lock);
    count++;
    sched_yield();
    pthread_mutex_unlock(&lock);
    sched_yield();
}

static void hand_over(void)
{
    for (int turn = 0; turn < TURNS; turn++)
        hold();
}

static void *handed(void *nobody)
{
    while (!stop)
        hold();
    return nobody;
}

/* The same to another CPU: from the moment before it is given back to that at which the other has it. It is held for so
   long that the other comes to wait meanwhile. */
static volatile uint64_t given_ns;
static atomic_int last_holder;

static uint64_t hold_for_a_while(int own)
{
    pthread_mutex_lock(&lock);
    uint64_t taken_ns = now_ns(), took_ns = taken_ns - given_ns;
    last_holder = own;
    while (now_ns() < taken_ns + 100000)
        __builtin_ia32_pause();
    given_ns = now_ns();
    pthread_mutex_unlock(&lock);
    return took_ns;
}

static void wait_for(int other)
{
    while (last_holder != other && !stop)
        __builtin_ia32_pause();
}

static void *handed_across(void *nobody)
{
    while (!stop) {
        wait_for(1);
        hold_for_a_while(2);
    }
    return nobody;
}

static void hand_across(void)
{
    stop = 0;
    last_holder = 1;
    pthread_t other = start(handed_across, cpus - 1);
    begin();
    for (int turn = 0; turn < MOST; turn++) {
        wait_for(2);
        put(hold_for_a_while(1), 1);
    }
    end("hand a mutex over");
    stop = 1;
    pthread_join(other, NULL);
}

static void beside(void *(*body)(void *), const char *name, int operations, void (*run)(void))
{
    stop = 0;
    pthread_t other = start(body, cpus - 1);
    row(name, operations, nothing, run);
    stop = 1;
    pthread_join(other, NULL);
}

static void use(int policy)
{
    struct sched_param parameters = { .sched_priority = policy == SCHED_FIFO };
    if (sched_setscheduler(0, policy, &parameters))
        fail("sched_setscheduler");
}

static void turns(void)
{
    if (cpus == 1) {
        /* With the default policy a thread that yields mostly goes on itself. */
        use(SCHED_FIFO);
        beside(yielder, "switch by yield", 2 * TURNS, yield);
        beside(handed, "hand a mutex over", 2 * TURNS, hand_over);
        use(SCHED_OTHER);
    } else {
        hand_across();
    }
    pthread_t other = start(player, cpus - 1);
    row("wake a thread", 2 * TURNS, nothing, wake);
    play(2);
    pthread_join(other, NULL);
    if (pipe(to) || pipe(from))
        fail("pipe");
    other = start(echo, cpus - 1);
    row("wake through a channel", 2 * TURNS, nothing, call);
    close(to[1]);
    pthread_join(other, NULL);
}

/* Starts and ends. */

static void *body(void *nobody)
{
    return nobody;
}

static void start_and_join(void)
{
    for (int number = 0; number < 50; number++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, body, NULL)))
            fail("pthread_create");
        pthread_join(thread, NULL);
    }
}

/* Timers. */

static void sleep_late(const char *name)
{
    begin();
    for (int number = 0; number < MOST; number++) {
        uint64_t deadline = now_ns() + 1000000;
        struct timespec time = { deadline / 1000000000, deadline % 1000000000 };
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
        put(now_ns() - deadline, 1);
    }
    end(name);
}

static void timers(void)
{
    sleep_late("timer of 1 ms, late by");
    prctl(PR_SET_TIMERSLACK, 1);
    sleep_late("the same, without slack");
    prctl(PR_SET_TIMERSLACK, 0);
}

/* What CPUs ask of each other while two of them run. */

static void *spinner(void *nobody)
{
    volatile uint64_t sum = 0;
    running++;
    while (!atomic_load_explicit(&stop, memory_order_relaxed))
        sum++;
    return nobody;
}

/* An interrupt to each CPU that runs a thread of this process, which executes a barrier there and says so. */
static void barrier(void)
{
    for (int number = 0; number < PAGES; number++)
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
}

/* Only taking the right away has to reach the others. */
static void protect(void)
{
    for (int number = 0; number < PAGES; number++)
        if (mprotect(pages, PAGE, PROT_READ) || mprotect(pages, PAGE, PROT_READ | PROT_WRITE))
            fail("mprotect");
}

static void touch_first(void)
{
    *(volatile char *)pages = 1;
}

static void others(void)
{
    stop = running = 0;
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0))
        fail("membarrier");
    pthread_t other = start(spinner, cpus - 1);
    while (!running)
        sched_yield();
    row("call another CPU", PAGES, nothing, barrier);
    row("unmap a page of another CPU", PAGES, touch_first, protect);
    stop = 1;
    pthread_join(other, NULL);
}

int main(int argc, char **arguments)
{
    cpus = argc > 1 ? atoi(arguments[1]) : 1;
    if (cpus < 1 || cpus > 64)
        return 1;
    pin(0);
    memory();
    turns();
    row("start and join a thread", 50, nothing, start_and_join);
    timers();
    if (cpus > 1)
        others();
    return 0;
}
