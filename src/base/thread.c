#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <uv.h>

struct start {
	void (*run)(void *data);
	void *data;
};

static void *thread_begin(void *data)
{
	struct start start = *(struct start *)data;
	free(data);
	start.run(start.data);
	return NULL;
}

/* Tells apart what pthread_create() calls by one name. */
static bool thread_has_room(size_t bytes)
{
	void *room =
	    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		return false;
	munmap(room, bytes);
	return true;
}

static int create(pthread_t *thread, size_t stack_bytes, struct start *start)
{
	pthread_attr_t attributes;
	int err = pthread_attr_init(&attributes);
	if (err)
		return err;
	err = pthread_attr_setstacksize(&attributes, stack_bytes);
	if (!err)
		err = pthread_create(thread, &attributes, thread_begin, start);
	pthread_attr_destroy(&attributes);
	return err;
}

int thread_start(pthread_t *thread, size_t stack_bytes, void (*run)(void *data), void *data)
{
	struct start *start = malloc(sizeof *start);
	if (!start)
		return UV_ENOMEM;
	*start = (struct start){ run, data };
	int err = create(thread, stack_bytes, start);
	if (!err)
		return 0;
	free(start);
	return err == EAGAIN && !thread_has_room(stack_bytes) ? UV_ENOMEM : -err;
}

bool thread_is_narrow(void)
{
	enum { USUAL_BYTES = 8 << 20 };
	struct rlimit limit;
	return !getrlimit(RLIMIT_STACK, &limit) && limit.rlim_cur < USUAL_BYTES;
}
