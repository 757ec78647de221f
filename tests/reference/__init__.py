"""An independent reference for the whole pipeline: what must come out for what went in, in exact arithmetic.

It shares no code with the product and must not import it.

    acceptance  which messages count as ticks          stream    adversarial input as JSON lines
    model       every result that is owed              spelling  how messages are written, well or badly
    exact       whether a published double is right    snapshot  a system's contents as plain data
    compare     the verdict on a running system        readers   from Kafka, Delta and MongoDB into a snapshot
    forms       whether contents have the right form   report    counting and printing
    ideal       what a faultless system would hold, to test the comparison itself
"""
