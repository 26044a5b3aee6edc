/* A text from C: bare metal on an MPS2 AN386 (Cortex-M4F), printed over semihosting as the board firmware's records are. */
#include "../siskin.h"

#define PROMPT "ROMEO:"
#define N_NEW 32
#define ARENA_BYTES (128 * 1024)

/* The packed model, which start.s includes. */
extern const uint8_t model[];
extern const uint32_t model_bytes;

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(SISKIN_ALIGN)));
static siskin_t siskin;

/* Asks the debugger or the emulator. */
static uint32_t host(uint32_t operation, const void *parameter)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = parameter;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* Prints on the host's standard output. */
static void print(const char *text)
{
    static const char name[] = ":tt";
    static uint32_t output = 0;
    uint32_t length = 0;

    if (output == 0) {
        const uint32_t file[3] = {(uint32_t)name, 4 /* to write */, sizeof name - 1};
        output = host(1 /* SYS_OPEN */, file);
    }
    while (text[length] != 0) {
        length++;
    }
    const uint32_t bytes[3] = {output, (uint32_t)text, length};
    host(5 /* SYS_WRITE */, bytes);
}

static _Noreturn void finish(uint32_t code)
{
    const uint32_t reason[2] = {0x20026 /* ended by itself */, code};
    host(0x20 /* SYS_EXIT_EXTENDED */, reason);
    for (;;) {
    }
}

void siskin_panic(void)
{
    print("fault siskin panicked\n");
    finish(101);
}

static void print_token(uint32_t token)
{
    char digits[12];
    char *at = digits + sizeof digits;
    *--at = 0;
    *--at = '\n';
    do {
        *--at = (char)('0' + token % 10);
        token /= 10;
    } while (token > 0);
    print("token ");
    print(at);
}

static void check(siskin_status status)
{
    if (status != SISKIN_OK) {
        print("error ");
        print(siskin_error(status));
        print("\n");
        finish(1);
    }
}

int main(void)
{
    static uint32_t prompt[64];
    size_t n_tokens = sizeof prompt / sizeof prompt[0];

    if (siskin_arena_bytes(model, model_bytes) > sizeof arena) {
        print("error the arena is too small for this model\n");
        finish(1);
    }
    check(siskin_init(&siskin, model, model_bytes, arena, sizeof arena));
    check(siskin_encode(&siskin, PROMPT, sizeof PROMPT - 1, prompt, &n_tokens));
    check(siskin_read(&siskin, prompt, n_tokens));
    for (int i = 0; i < N_NEW; i++) {
        uint32_t token = siskin_draw(&siskin);
        if (siskin_is_end(&siskin, token)) {
            break;
        }
        print_token(token);
        check(siskin_read(&siskin, &token, 1));
    }
    /* What is wrong is told, and nothing has changed. */
    uint32_t none = UINT32_MAX;
    if (siskin_read(&siskin, &none, 1) != SISKIN_BAD_TOKENS || siskin_init(&siskin, model, model_bytes, arena, 16) != SISKIN_BAD_ARENA
        || siskin_init(&siskin, model + SISKIN_ALIGN, model_bytes - SISKIN_ALIGN, arena, sizeof arena) != SISKIN_BAD_MODEL) {
        print("error what is wrong goes unnoticed\n");
        finish(1);
    }
    finish(0);
}
