"""What SimVG and ALVG share: the method on a BEiT-3 encoder, query generation, decoder, criterion, input pipeline."""
