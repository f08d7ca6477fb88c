"""A head of the row network: which experts will a coming layer choose?"""
