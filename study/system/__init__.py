"""What a study and `forestage system` say of a whole system: parts that are simulated, conclusions, words, tables."""
