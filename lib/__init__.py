"""Build a transformer, then decide about one: the library behind the lessons.

Read the files in the order of the lessons: errors, device, catalogue, corpus, tokenizer, embedding, attention,
transformer, training, parallel, generation, decoding, replay, serving, pretrained, convert, images, vision, retail,
evaluation, intents, scenarios, families, metamodel, counting, sizing, scaling, dialogues, finetuning, specialist, desk,
customers, plotting.
`lib.course` runs the lessons, `lib.grading` checks the exercises; neither is imported by the model.

Axis letters, the same in every shape comment and docstring:

    B  batch                     H   query heads
    T  query position            K   key/value heads
    S  key position              G   query heads per key/value head (G = H / K)
    D  model width (d_model)     Dh  width of one head
    V  vocabulary                F   feed-forward width (d_ff)
"""
