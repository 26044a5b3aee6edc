/* Siskin from C: a packed model in flash, worked in memory that you own. There is no heap, no global state and no other thread.
 *
 * One call at a time may work on a siskin_t. Every function that gives a siskin_status leaves what it was given as it was where
 * it fails. Texts are UTF-8 with a length, not ended by a zero. */
#ifndef SISKIN_H
#define SISKIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the model and the arena must be aligned to, in bytes. */
#define SISKIN_ALIGN 16
/* Bytes of a siskin_t. */
#define SISKIN_BYTES 2048

/* A model at work. It stays where it is between siskin_init and its last use. */
typedef struct {
    uint64_t opaque[SISKIN_BYTES / 8];
} siskin_t;

typedef enum {
    SISKIN_OK = 0,
    /* The model: no packed file, damaged, of another version or family, or not aligned. */
    SISKIN_BAD_MODEL = 1,
    /* The weights lie in another order than this core's kernels read: compile the model for this board. */
    SISKIN_WRONG_LAYOUT = 2,
    /* The arena: smaller than siskin_arena_bytes, not aligned, or the model continues no text. */
    SISKIN_BAD_ARENA = 3,
    /* The model has no tokenizer. */
    SISKIN_NO_TOKENIZER = 4,
    /* The text is not UTF-8. */
    SISKIN_NOT_UTF8 = 5,
    /* There is no room for the text's tokens. */
    SISKIN_NO_ROOM = 6,
    /* No token was given, or one that the vocabulary does not have, or the model's encoder has read nothing. */
    SISKIN_BAD_TOKENS = 7,
    /* The tokens do not fit behind those in the context. */
    SISKIN_CONTEXT_FULL = 8,
    /* A parameter of sampling is out of its range. */
    SISKIN_BAD_SAMPLING = 9
} siskin_status;

/* How tokens are drawn. All zeros but for seed is greedy. */
typedef struct {
    float temperature; /* 0 is greedy */
    uint32_t top_k;    /* 0 keeps every token */
    float top_p;       /* 0 and 1 keep every token */
    float min_p;       /* 0 keeps every token */
    uint64_t seed;     /* the same seed, the same text */
} siskin_sampling;

/* What a status means, ended by a zero. */
const char *siskin_error(siskin_status status);

/* Bytes of the arena that the model needs; 0 where it is no packed file. */
size_t siskin_arena_bytes(const uint8_t *model, size_t model_bytes);

/* Checks the model, its checksums included, and sets it up in the arena. Both must outlive `siskin`. Greedy until told otherwise. */
siskin_status siskin_init(siskin_t *siskin, const uint8_t *model, size_t model_bytes, uint8_t *arena, size_t arena_bytes);

/* Sets how tokens are drawn from now on. */
siskin_status siskin_set_sampling(siskin_t *siskin, const siskin_sampling *sampling);

/* Writes the text's tokens into `tokens`, which has room for `*n_tokens`, and their number into `*n_tokens`. Room for as many tokens as
 * the text has bytes, and two more, always suffices; twice as many where the model's tokenizer puts spaces after special tokens. */
siskin_status siskin_encode(const siskin_t *siskin, const char *text, size_t text_bytes, uint32_t *tokens, size_t *n_tokens);

/* Reads tokens, behind those that were read before. */
siskin_status siskin_read(siskin_t *siskin, const uint32_t *tokens, size_t n_tokens);

/* Draws the next token, which the model has not read yet. Once after each reading, of which there must have been one. */
uint32_t siskin_draw(siskin_t *siskin);

/* The bytes that a token stands for, which may be part of a character; their number goes into `*n_bytes`: 0 for a control token. */
const char *siskin_piece(const siskin_t *siskin, uint32_t token, size_t *n_bytes);

/* Whether the model ends its text with this token. */
int siskin_is_end(const siskin_t *siskin, uint32_t token);

/* Forgets all that was read. */
void siskin_reset(siskin_t *siskin);

/* You define this: it is called where Siskin itself is wrong, never for bad input, and must not come back. */
void siskin_panic(void);

#ifdef __cplusplus
}
#endif

#endif
