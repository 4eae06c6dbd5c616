/*
 * Two threads that wake each other in turn by an eventfd, for which each waits with epoll: the least that a message
 * there and back takes between two threads that have nothing else to do. Prints nanoseconds a round trip, for each
 * argument's worth of round trips.
 *
 *     cc -O2 -pthread bench/pingpong.c -o pingpong && ./pingpong 100000
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static int there, back;

static int watch(int fd)
{
	int set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };
	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &event)) {
		perror("pingpong");
		exit(1);
	}
	return set;
}

static void wait_for(int set, int fd)
{
	struct epoll_event event;
	uint64_t count;
	while (epoll_wait(set, &event, 1, -1) != 1)
		;
	if (read(fd, &count, sizeof count) != sizeof count)
		exit(1);
}

static void wake(int fd)
{
	uint64_t one = 1;
	if (write(fd, &one, sizeof one) != sizeof one)
		exit(1);
}

static void *answer(void *data)
{
	int set = watch(there);
	(void)data;
	for (;;) {
		wait_for(set, there);
		wake(back);
	}
	return NULL;
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	pthread_t other;
	there = eventfd(0, EFD_NONBLOCK);
	back = eventfd(0, EFD_NONBLOCK);
	int set = watch(back);
	if (pthread_create(&other, NULL, answer, NULL))
		return 1;
	for (int i = 1; i < argc; i++) {
		int rounds = atoi(argv[i]);
		double began = seconds();
		for (int n = 0; n < rounds; n++) {
			wake(there);
			wait_for(set, back);
		}
		printf("%.0f\n", (seconds() - began) / rounds * 1e9);
		fflush(stdout);
	}
	return 0;
}
