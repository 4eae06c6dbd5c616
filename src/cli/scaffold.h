/*
 * Makes a folder from a template: a copy of folders of text files, in whose texts and names placeholders such as
 * @NAME@ are replaced.
 */
#pragma once

#include <stddef.h>

struct placeholder {
	const char *mark;  /* "@NAME@" */
	const char *value; /* what stands there instead */
};

struct scaffold {
	const char *target;                     /* the folder to be made; what it lies in must be there */
	const struct placeholder *placeholders; /* ended by one whose mark is NULL */
	char **made;                            /* paths, in the order made: the target first */
	size_t made_count;
	char problem[4352]; /* after a failure: which file, and why */
};

/* Makes the target, which must not be there. 0 or a negative UV_E*, with `problem` set. To be closed either way. */
int scaffold_open(struct scaffold *scaffold, const char *target, const struct placeholder *placeholders);

/* Copies what lies in `folder` into the target; several may be copied, one over the other's folders but not over its
 * files. 0 or a negative UV_E*, with `problem` set. */
int scaffold_copy(struct scaffold *scaffold, const char *folder);

/* Removes all that was made. */
void scaffold_undo(struct scaffold *scaffold);
void scaffold_close(struct scaffold *scaffold);
