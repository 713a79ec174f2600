/*
 * The services that are measured, for Linux: one thread, one poll(2) over all connections, like the guest's one CPU.
 * Port 7 echoes, 9 takes, 19 gives as many bytes as a line asks for, 80 answers requests with 13 bytes and goes on unless
 * the request says "close".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORTS = 4, MOST = 1100, PIECE = 64 << 10 };
static const int ports[PORTS] = { 7, 9, 19, 80 };
static const char answer[] = "HTTP/1.1 200 OK\r\nServer: peer\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n"
                             "Accept-Ranges: bytes\r\n\r\nHello, world!";
static struct pollfd fds[MOST];
static int kind[MOST];
static long left[MOST];
static long long total[MOST];
static int count;
static char piece[PIECE];

static void add(int fd, int what)
{
	if (count == MOST) {
		close(fd);
		return;
	}
	fds[count].fd = fd;
	fds[count].events = POLLIN;
	left[count] = 0;
	total[count] = 0;
	kind[count++] = what;
}

static void drop(int at)
{
	close(fds[at].fd);
	count--;
	fds[at] = fds[count];
	kind[at] = kind[count];
	left[at] = left[count];
	total[at] = total[count];
}

/* Returns 0 when the connection is over. */
static int give(int at)
{
	while (left[at] > 0) {
		ssize_t sent = send(fds[at].fd, piece, left[at] < PIECE ? left[at] : PIECE, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent < 0) {
			fds[at].events = POLLOUT;
			return errno == EAGAIN;
		}
		left[at] -= sent;
	}
	return 0;
}

static int serve(int at)
{
	int fd = fds[at].fd;
	if (kind[at] == 19 && left[at] > 0)
		return give(at);
	ssize_t got = recv(fd, piece, PIECE, MSG_DONTWAIT);
	if (got < 0)
		return errno == EAGAIN;
	if (got == 0) {
		if (kind[at] == 9) {
			int len = snprintf(piece, PIECE, "%lld\n", total[at]);
			send(fd, piece, len, MSG_NOSIGNAL);
		}
		return 0;
	}
	switch (kind[at]) {
	case 7:
		for (ssize_t sent = 0, now; sent < got; sent += now)
			if ((now = send(fd, piece + sent, got - sent, MSG_NOSIGNAL)) < 0)
				return 0;
		return 1;
	case 9:
		total[at] += got;
		return 1;
	case 19:
		left[at] = strtol(piece, NULL, 10);
		return give(at);
	default:
		piece[got < PIECE ? got : PIECE - 1] = 0;
		if (send(fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
			return 0;
		return strcasestr(piece, "connection: close") == NULL;
	}
}

int main(void)
{
	int one = 1;
	for (int at = 0; at < PORTS; at++) {
		struct sockaddr_in here = { .sin_family = AF_INET, .sin_port = htons(ports[at]) };
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 512))
			return 1;
		add(fd, -ports[at]);
	}
	for (;;) {
		poll(fds, count, -1);
		for (int at = count - 1; at >= 0; at--) {
			if (!fds[at].revents)
				continue;
			if (kind[at] < 0) {
				int fd = accept(fds[at].fd, NULL, NULL);
				if (fd >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
					add(fd, -kind[at]);
				}
			} else if (!serve(at)) {
				drop(at);
			}
		}
	}
}
