@ The vector table, the way from a reset to main, and the model in flash.
    .syntax unified
    .cpu cortex-m4
    .thumb

    .section .vectors, "a"
    .word stack_top
    .word reset + 1
    .rept 14
    .word fault + 1
    .endr

    .text
    .global reset
    .thumb_func
reset:
    @ Access to the FPU: coprocessors 10 and 11.
    ldr r0, =0xe000ed88
    ldr r1, [r0]
    orr r1, r1, #(0xf << 20)
    str r1, [r0]
    dsb
    isb
    ldr r0, =data_start
    ldr r1, =data_end
    ldr r2, =data_source
1:  cmp r0, r1
    ittt lo
    ldrlo r3, [r2], #4
    strlo r3, [r0], #4
    blo 1b
    ldr r0, =bss_start
    ldr r1, =bss_end
    movs r3, #0
2:  cmp r0, r1
    itt lo
    strlo r3, [r0], #4
    blo 2b
    bl main

    .thumb_func
fault:
    bl siskin_panic
    b fault

    .section .rodata
    .balign 16
    .global model
model:
    .incbin MODEL
model_end:
    .balign 4
    .global model_bytes
model_bytes:
    .word model_end - model

    .section .note.GNU-stack, "", %progbits
