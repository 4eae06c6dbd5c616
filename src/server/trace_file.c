#include "server/trace_file.h"

#include "record/create.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int trace_file_open(struct trace_file *file, uv_loop_t *loop, const char *path, bool force, char *why,
		    size_t size)
{
	file->fd = trace_create(path, force);
	if (file->fd < 0) {
		snprintf(why, size, "cannot record to %s: %s", path, trace_create_error(file->fd));
		return file->fd;
	}
	file->loop = loop;
	file->bytes = NULL;
	file->whole = 0;
	file->is_over = false;
	return 0;
}

static void close_file(struct trace_file *file)
{
	close(file->fd);
	file->fd = -1;
}

static void go_on(struct trace_file *file);

/* What is half there is taken back: all lines of a trace are whole. */
static void give_up(struct trace_file *file, int err)
{
	int ignored = ftruncate(file->fd, file->whole);
	(void)ignored;
	free(file->bytes);
	file->bytes = NULL;
	close_file(file);
	if (!file->is_over)
		file->written(file->owner, err);
}

static void on_written(uv_fs_t *write)
{
	struct trace_file *file = write->data;
	ssize_t n = write->result;
	uv_fs_req_cleanup(write);
	if (n <= 0) {
		give_up(file, n ? (int)n : UV_EIO);
		return;
	}
	file->at += (size_t)n;
	if (file->at < file->n) {
		go_on(file);
		return;
	}
	file->whole += (int64_t)file->n;
	free(file->bytes);
	file->bytes = NULL;
	if (file->is_over)
		close_file(file);
	else
		file->written(file->owner, 0);
}

static void go_on(struct trace_file *file)
{
	uv_buf_t rest = uv_buf_init(file->bytes + file->at, (unsigned)(file->n - file->at));
	file->write.data = file;
	int err = uv_fs_write(file->loop, &file->write, file->fd, &rest, 1, -1, on_written);
	if (err)
		give_up(file, err);
}

bool trace_file_keep(void *data, char *bytes, size_t n)
{
	struct trace_file *file = data;
	if (file->fd < 0) {
		free(bytes);
		return false;
	}
	file->bytes = bytes;
	file->n = n;
	file->at = 0;
	go_on(file);
	return true;
}

void trace_file_end(void *data)
{
	struct trace_file *file = data;
	file->is_over = true;
	if (file->fd >= 0 && !file->bytes)
		close_file(file);
}
