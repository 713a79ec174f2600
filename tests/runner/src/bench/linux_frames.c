/* How many frames Linux sends: a packet socket that skips the queueing discipline, sendmmsg(2) of 1, 32 or 256 frames.
   linux_frames DEVICE MILLISECONDS prints a line a case, as the guest bench_net does (see apps/bench_net). */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include "linux.h"

enum { MOST = 256, TYPE = 0x88b5 };

static uint64_t interrupts(void)
{
    char line[512];
    uint64_t sum = 0;
    FILE *file = fopen("/proc/interrupts", "r");
    while (file && fgets(line, sizeof line, file))
        if (strstr(line, "virtio") && strstr(line, "put"))
            sum += strtoull(strchr(line, ':') + 1, NULL, 10);
    if (file)
        fclose(file);
    return sum;
}

int main(int count, char **arguments)
{
    static char frame[1514] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5 };
    static struct mmsghdr messages[MOST];
    static const int lens[] = { 60, 1514 }, batches[] = { 1, 32, 256 };
    if (count != 3)
        return 2;
    int fd = socket(AF_PACKET, SOCK_RAW, 0), one = 1;
    struct sockaddr_ll to = { .sll_family = AF_PACKET, .sll_protocol = htons(TYPE), .sll_ifindex = if_nametoindex(arguments[1]) };
    uint64_t ns = strtoull(arguments[2], NULL, 10) * 1000000;
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof to) || setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one)) {
        perror(arguments[1]);
        return 1;
    }
    for (int l = 0; l < 2; l++)
        for (int b = 0; b < 3; b++) {
            struct iovec part = { frame, lens[l] };
            for (int at = 0; at < MOST; at++)
                messages[at].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
            uint64_t sent = 0, before = interrupts(), start = now_ns();
            while (now_ns() < start + ns) {
                int now = sendmmsg(fd, messages, batches[b], MSG_DONTWAIT);
                if (now > 0) {
                    sent += now;
                } else if (errno == EAGAIN || errno == ENOBUFS) {
                    struct pollfd room = { fd, POLLOUT, 0 };
                    poll(&room, 1, 1);
                } else {
                    perror("sendmmsg");
                    return 1;
                }
            }
            uint64_t elapsed = now_ns() - start;
            printf("frames linux %d %d %llu - %llu\n", lens[l], batches[b], (unsigned long long)(sent * 1000000000ull / elapsed),
                   (unsigned long long)((interrupts() - before) * 1000 / (sent ? sent : 1)));
        }
    return 0;
}
